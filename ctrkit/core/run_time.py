"""How long a run takes: start-up once, then its epochs. Displays and reports ask here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ctrkit.core.records import Recommendation

#: Terms of an epoch that come after its last step.
ENDING = ("validation", "metrics", "checkpoint")


@dataclass(frozen=True, kw_only=True)
class Place:
    """How far a run is, in epochs counted from 0.

    After its last step an epoch is validated, its metrics are computed and it is saved: only then
    is it over.

    Attributes:
        trained: epochs whose steps are done, with a fraction for the one under way.
        over: whole epochs that are over.
    """

    trained: float = 0.0
    over: float = 0.0


BEGINNING = Place()


def end_of(epochs: float) -> Place:
    """The place where a run of so many epochs ends; a part of an epoch is not validated."""
    return Place(trained=epochs, over=math.floor(epochs))


@dataclass(frozen=True, kw_only=True)
class RunTime:
    """Seconds of a run by its parts. Epochs are counted from 0 and may be parts of one.

    Attributes:
        epoch_s: any epoch but the first.
        startup_s: once, before the first epoch.
        first_epoch_s: the first epoch, None where it takes as long as the others.
        ending_s: of an epoch, what comes after its last step: validation, metrics, a checkpoint;
            None where only whole epochs are known.
        low: what the whole takes at least, as a factor of it; None where that is not known.
        high: what it takes at most.
    """

    epoch_s: float
    startup_s: float = 0.0
    first_epoch_s: float | None = None
    ending_s: float | None = None
    low: float | None = None
    high: float | None = None

    def epochs_s(self, end: float, *, begin: float = 0.0) -> float:
        """Seconds from `begin` to `end`, both in epochs that are done."""
        count = max(0.0, end - begin)
        if self.first_epoch_s is None:
            return count * self.epoch_s
        of_first = max(0.0, min(1.0, end) - min(1.0, begin))
        return of_first * self.first_epoch_s + (count - of_first) * self.epoch_s

    def until_s(self, place: Place) -> float:
        """Seconds from the beginning of the first epoch to a place."""
        ends_to_come = place.trained - place.over
        return self.epochs_s(place.trained) - ends_to_come * (self.ending_s or 0.0)

    def between_s(self, begin: Place, end: Place) -> float:
        """Seconds from one place to a later one."""
        return max(0.0, self.until_s(end) - self.until_s(begin))

    def total_s(self, epochs: float, *, begin: float = 0.0) -> float:
        """Start-up and the epochs up to `epochs`; of a run that goes on, those from `begin` on."""
        return self.startup_s + self.epochs_s(epochs, begin=begin)

    def range_s(self, seconds: float) -> tuple[float | None, float | None]:
        """The ends of the interval around so many seconds of this run."""
        return (
            None if self.low is None else seconds * self.low,
            None if self.high is None else seconds * self.high,
        )

    def epochs_in(self, total_s: float) -> int:
        """How many whole epochs a run of `total_s` has, at least one."""
        first_s = self.epoch_s if self.first_epoch_s is None else self.first_epoch_s
        return max(1, 1 + round((total_s - self.startup_s - first_s) / self.epoch_s))


def projected_time(projection: Recommendation | None) -> RunTime | None:
    """The run time in a projection; None where no epoch was projected, as for an endless loader."""
    if projection is None or not projection.projected_epoch_s:
        return None
    middle_s, low_s, high_s = (
        projection.projected_total_s,
        projection.projected_total_s_low,
        projection.projected_total_s_high,
    )
    if not middle_s:
        middle_s = projection.projected_epoch_s
        low_s, high_s = projection.projected_epoch_s_low, projection.projected_epoch_s_high
    terms_s = projection.projected_terms_s
    return RunTime(
        epoch_s=projection.projected_epoch_s,
        startup_s=projection.projected_startup_s or 0.0,
        first_epoch_s=projection.projected_first_epoch_s,
        ending_s=sum(terms_s.get(term, 0.0) for term in ENDING) if terms_s else None,
        low=None if low_s is None else low_s / middle_s,
        high=None if high_s is None else high_s / middle_s,
    )


def saves_within(training_s: float, every_s: float, step_s: float = 0.0) -> int:
    """How often an epoch of so many seconds is saved between its steps, once every `every_s`."""
    # a save waits for the end of its step
    return int(training_s // max(every_s, step_s, 1e-9))


def saved_every(projection: Recommendation, every_s: float) -> Recommendation:
    """The projection of a run that saves itself so often within an epoch.

    Args:
        projection: of a run that may save itself at other times.
        every_s: `--checkpoint-every`.
    """
    terms_s, time = projection.projected_terms_s, projected_time(projection)
    if time is None or projection.script is not None or "training" not in terms_s:
        return projection
    within_s = saves_within(terms_s["training"], every_s) * terms_s.get("checkpoint", 0.0)
    more_s = within_s - terms_s.get("within", 0.0)

    epochs = time.epochs_in(projection.projected_total_s or 0.0)

    def later(seconds: float | None, times: int = 1) -> float | None:
        return None if seconds is None else max(seconds / 10, seconds + times * more_s)

    changed: dict[str, Any] = {
        f"projected_{name}{end}": later(getattr(projection, f"projected_{name}{end}"), times)
        for name, times in (("epoch_s", 1), ("total_s", epochs))
        for end in ("", "_low", "_high")
    }
    first_s = later(projection.projected_first_epoch_s)
    terms = {**terms_s, "within": within_s}
    return replace(projection, **changed, projected_first_epoch_s=first_s, projected_terms_s=terms)


def projected_epoch(
    projection: Recommendation, epoch: float | None
) -> tuple[float | None, float | None, float | None]:
    """What was projected for the epoch of this number, from 1 on: mean, low and high end."""
    first_s = projection.projected_first_epoch_s
    if epoch == 1 and first_s is not None:
        return first_s, None, None
    return (
        projection.projected_epoch_s,
        projection.projected_epoch_s_low,
        projection.projected_epoch_s_high,
    )


def measured_time(epochs_s: Sequence[float], ending_s: float | None = None) -> RunTime | None:
    """A run at the mean pace of epochs that were run; None without any.

    Args:
        epochs_s: what each took.
        ending_s: what the end of one takes, where that was seen.
    """
    if not epochs_s:
        return None
    return RunTime(epoch_s=sum(epochs_s) / len(epochs_s), ending_s=ending_s)
