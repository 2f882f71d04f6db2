"""How long a run takes: start-up once, then its epochs. Displays and reports ask here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ctrkit.core.records import Recommendation

#: Terms of an epoch that follow its last step.
ENDING = ("validation", "metrics", "checkpoint")


@dataclass(frozen=True, kw_only=True)
class Place:
    """How far a run has got, in epochs counted from 0.

    An epoch is over only after its last step, its validation, its metrics and its checkpoint.

    Attributes:
        trained: epochs whose steps are done, with a fraction for the current one.
        over: whole epochs that are over.
    """

    trained: float = 0.0
    over: float = 0.0


BEGINNING = Place()


def end_of(epochs: float) -> Place:
    """The place where a run of so many epochs ends; a partial epoch is not validated."""
    return Place(trained=epochs, over=math.floor(epochs))


@dataclass(frozen=True, kw_only=True)
class RunTime:
    """Seconds of a run by its parts. Epochs are counted from 0 and may be fractions.

    Attributes:
        epoch_s: any epoch except the first.
        startup_s: once, before the first epoch.
        first_epoch_s: the first epoch; None if it takes as long as the others.
        ending_s: the part of an epoch after its last step (validation, metrics, checkpoint); None
            if only whole epochs are known.
        low: low end of the interval as a factor of the time; None if unknown.
        high: high end, likewise.
    """

    epoch_s: float
    startup_s: float = 0.0
    first_epoch_s: float | None = None
    ending_s: float | None = None
    low: float | None = None
    high: float | None = None

    def epochs_s(self, end: float, *, begin: float = 0.0) -> float:
        """Seconds from `begin` to `end`, both numbers of finished epochs."""
        count = max(0.0, end - begin)
        if self.first_epoch_s is None:
            return count * self.epoch_s
        of_first = max(0.0, min(1.0, end) - min(1.0, begin))
        return of_first * self.first_epoch_s + (count - of_first) * self.epoch_s

    def until_s(self, place: Place) -> float:
        """Seconds from the beginning of the first epoch to this place."""
        ends_to_come = place.trained - place.over
        return self.epochs_s(place.trained) - ends_to_come * (self.ending_s or 0.0)

    def between_s(self, begin: Place, end: Place) -> float:
        """Seconds from one place to a later one."""
        return max(0.0, self.until_s(end) - self.until_s(begin))

    def total_s(self, epochs: float, *, begin: float = 0.0) -> float:
        """Seconds of start-up and the epochs up to `epochs`; a resumed run starts at `begin`."""
        return self.startup_s + self.epochs_s(epochs, begin=begin)

    def range_s(self, seconds: float) -> tuple[float | None, float | None]:
        """The ends of the interval around so many seconds of this run; None for an unknown end."""
        return (
            None if self.low is None else seconds * self.low,
            None if self.high is None else seconds * self.high,
        )

    def epochs_in(self, total_s: float) -> int:
        """The number of whole epochs in a run of `total_s` seconds, at least one."""
        first_s = self.epoch_s if self.first_epoch_s is None else self.first_epoch_s
        return max(1, 1 + round((total_s - self.startup_s - first_s) / self.epoch_s))


def projected_time(projection: Recommendation | None) -> RunTime | None:
    """The run time of a projection; None if no epoch was projected, as for an endless loader."""
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
    """How often an epoch with `training_s` of steps is saved between its steps.

    It is saved once every `every_s`, at the earliest after each step.
    """
    # a save waits for the end of a step
    return int(training_s // max(every_s, step_s, 1e-9))


def saved_every(projection: Recommendation, every_s: float) -> Recommendation:
    """The projection for a run that saves itself every `every_s` within an epoch.

    Args:
        projection: the projection of a run that may save at other times.
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
    """The projected seconds of this epoch, numbered from 1: mean, low end, high end."""
    first_s = projection.projected_first_epoch_s
    if epoch == 1 and first_s is not None:
        return first_s, None, None
    return (
        projection.projected_epoch_s,
        projection.projected_epoch_s_low,
        projection.projected_epoch_s_high,
    )


def measured_time(epochs_s: Sequence[float], ending_s: float | None = None) -> RunTime | None:
    """A run time at the mean pace of finished epochs; None without any.

    Args:
        epochs_s: seconds of each epoch.
        ending_s: seconds of an epoch's end, if known.
    """
    if not epochs_s:
        return None
    return RunTime(epoch_s=sum(epochs_s) / len(epochs_s), ending_s=ending_s)
