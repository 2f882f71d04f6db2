"""How long a run takes: its start-up once, then its epochs. Who needs such a figure asks here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ctrkit.core.records import Recommendation


@dataclass(frozen=True, kw_only=True)
class RunTime:
    """Seconds of a run by its parts. Epochs are counted from 0 and may be parts of one.

    Attributes:
        epoch_s: any epoch but the first.
        startup_s: once, before the first epoch.
        first_epoch_s: the first epoch, None where it takes as long as the others.
        low: what the whole takes at least, as a factor of it; None where that is not known.
        high: what it takes at most.
    """

    epoch_s: float
    startup_s: float = 0.0
    first_epoch_s: float | None = None
    low: float | None = None
    high: float | None = None

    def epochs_s(self, end: float, *, begin: float = 0.0) -> float:
        """Seconds from `begin` to `end`, both in epochs that are done."""
        count = max(0.0, end - begin)
        if self.first_epoch_s is None:
            return count * self.epoch_s
        of_first = max(0.0, min(1.0, end) - min(1.0, begin))
        return of_first * self.first_epoch_s + (count - of_first) * self.epoch_s

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
    return RunTime(
        epoch_s=projection.projected_epoch_s,
        startup_s=projection.projected_startup_s or 0.0,
        first_epoch_s=projection.projected_first_epoch_s,
        low=None if low_s is None else low_s / middle_s,
        high=None if high_s is None else high_s / middle_s,
    )


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


def measured_time(epochs_s: Sequence[float]) -> RunTime | None:
    """A run at the mean pace of epochs that were run; None without any."""
    return RunTime(epoch_s=sum(epochs_s) / len(epochs_s)) if epochs_s else None
