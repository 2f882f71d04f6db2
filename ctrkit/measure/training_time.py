"""What the training of an epoch takes, from the steps that launches of a cell were seen to make.

Of three ways the one is taken that saw most: a whole epoch that was timed; the batches that workers
stamped, replayed to a whole epoch; the mean step of the windows, multiplied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ctrkit.core.config import RunSizes
from ctrkit.core.records import Measurement
from ctrkit.measure.later_epochs import later_epochs
from ctrkit.measure.replay import Load
from ctrkit.measure.statistics import (
    FASTER,
    PROVISIONAL,
    SLOWER,
    Interval,
    Sample,
    prediction_interval,
)
from ctrkit.measure.steps import (
    first_throughput_step,
    mean_wait_s,
    sample_of_load,
    samples_of,
    trends_of,
)
from ctrkit.measure.trends import Trend, trending_epoch

LEAST_STEPS = 3


@dataclass(frozen=True, kw_only=True)
class TrainingTime:
    """Seconds of training, as a mean step that is known or predicted.

    Attributes:
        per_epoch: seconds per step over one epoch.
        per_run: the same over the whole run.
        wait_s: how long a step waits for its batch. The first batch's is inside the restart.
        whole_s: an epoch's training after its first batch, where whole epochs were timed: better
            than steps, since it has the pre-filled batches too.
        later: the training time of later epochs as a factor of the first one's; None: all alike.
        trends: of the launches whose steps get slower or faster through an epoch.
        flags: what has to be said of the steps.
    """

    per_epoch: Interval
    per_run: Interval
    wait_s: float
    whole_s: float | None = None
    later: Interval | None = None
    trends: tuple[Trend, ...] = ()
    flags: tuple[str, ...] = ()


def training_time(
    launches: Sequence[Measurement],
    sizes: RunSizes,
    *,
    loads: Sequence[Load],
    cycle: int,
    earlier: Sequence[Measurement],
    peers: Sequence[Sequence[Sample]],
) -> TrainingTime | None:
    """The training time of a cell from its launches; the arguments are those of `project`.

    None where no step was measured. `sizes.train_batches` is known.
    """
    samples = samples_of(launches, cycle)
    batches = sizes.train_batches
    if not samples or not batches:
        return None
    whole_s, trends = _whole_epoch(launches, batches)
    replayed = bool(loads) and not trends
    if replayed:
        samples = [sample_of_load(load, batches) for load in loads]
    groups = [samples_of(earlier, cycle), *peers]
    # a replayed epoch begins with its first batch; one of equal steps has to leave that wait out
    waits = [] if replayed else [w for w in map(mean_wait_s, launches) if w is not None]
    later = later_epochs([*launches, *earlier], cycle) if sizes.epochs != 1 else None
    found = TrainingTime(
        per_epoch=prediction_interval(samples, batches, groups),
        per_run=prediction_interval(samples, batches * (sizes.epochs or 1), groups),
        wait_s=sum(waits) / len(waits) if waits else 0.0,
        whole_s=whole_s,
        later=later.factor if later is not None else None,
        trends=tuple(trends),
        flags=tuple(_flags(samples, len(earlier), whole_s)),
    )
    return _following_trends(found, launches, batches) if trends else found


def _whole_epoch(launches: Sequence[Measurement], batches: int) -> tuple[float | None, list[Trend]]:
    """Mean seconds of whole epochs after their first batch, and the trends that still count.

    Of steps that get slower one whole epoch says more than all windows that saw its beginning.
    """
    timed_s = [
        m.epoch_s - (m.first_batch_s or 0.0)
        for m in launches
        if m.epoch_complete and m.epoch_batches == batches and m.epoch_s is not None
    ]
    trends = trends_of(launches)
    if timed_s and (len(timed_s) == len(launches) or trends):
        return sum(timed_s) / len(timed_s), []
    return None, trends


def _flags(samples: Sequence[Sample], earlier: int, whole_s: float | None) -> list[str]:
    flags = [flag for sample in samples for flag in sample.flags]
    if whole_s is not None:  # the whole epoch was seen: there is nothing to go on as it began
        flags = [flag for flag in flags if flag not in (SLOWER, FASTER)]
    if len(samples) + earlier < 2 or sum(s.n for s in samples) < LEAST_STEPS:
        flags.append(PROVISIONAL)
    return flags


def _following_trends(
    found: TrainingTime, launches: Sequence[Measurement], batches: int
) -> TrainingTime:
    """The same where the steps of an epoch follow the trends."""
    before = min(first_throughput_step(m) for m in launches)
    per_epoch, per_run = (
        _trending(found.trends, before, batches, step) for step in (found.per_epoch, found.per_run)
    )
    return replace(found, per_epoch=per_epoch, per_run=per_run)


def _trending(trends: Sequence[Trend], before: int, batches: int, step: Interval) -> Interval:
    """The mean step of an epoch whose steps follow the trends, as uncertain as `step` besides."""
    epochs = [trending_epoch(trend, before, batches) for trend in trends]
    count, unsure = len(epochs), step.mean or 1.0
    return Interval(
        mean=sum(e.mean_s for e in epochs) / count,
        low=sum(e.low_s for e in epochs) / count * step.low / unsure,
        high=sum(e.high_s for e in epochs) / count * step.high / unsure,
    )
