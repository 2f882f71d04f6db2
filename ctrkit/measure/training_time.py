"""How long the training of an epoch takes, from the steps that launches of a cell made.

Of three ways, it uses the one that saw most: a whole epoch that was timed; stamped batches,
replayed to a whole epoch; the mean step of the windows, multiplied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

from ctrkit.core.child_records import Measurement
from ctrkit.core.config import RunSizes
from ctrkit.core.launch_spread import SHIPPED, LaunchSpread
from ctrkit.measure.caution import beyond_the_begin, cautious
from ctrkit.measure.content import content_of, first_batches_only
from ctrkit.measure.later_epochs import later_epochs
from ctrkit.measure.places import VARIES, Profile, profile_of
from ctrkit.measure.replay import Load
from ctrkit.measure.samples import FASTER, NOT_STEADY, SLOWER, Sample
from ctrkit.measure.statistics import (
    PROVISIONAL,
    Interval,
    launches_differ,
    prediction_interval,
    spread_share,
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
#: Fewer launches say too little about how launches differ.
LEAST_LAUNCHES = 3
FEW_STEPS, LAUNCHES_DIFFER = "few steps", "launches differ"


@dataclass(frozen=True, kw_only=True)
class TrainingTime:
    """Training time as a mean step, known or predicted.

    Attributes:
        per_epoch: seconds per step over one epoch.
        per_run: the same over the whole run.
        wait_s: seconds that a step waits for its batch; the first batch's wait belongs to the
            restart.
        whole_s: an epoch's training after its first batch, if whole epochs were timed; better than
            steps, because it includes the pre-filled batches.
        later: training time of later epochs as a factor of the first one's; None: the same.
        trends: trends of launches whose steps get slower or faster through an epoch.
        flags: flags about the steps.
        lacking: the main reason for a wide interval: FEW_STEPS or LAUNCHES_DIFFER.
    """

    per_epoch: Interval
    per_run: Interval
    wait_s: float
    whole_s: float | None = None
    later: Interval | None = None
    trends: tuple[Trend, ...] = ()
    flags: tuple[str, ...] = ()
    lacking: str = FEW_STEPS


def training_time(
    launches: Sequence[Measurement],
    sizes: RunSizes,
    *,
    loads: Sequence[Load],
    cycle: int,
    earlier: Sequence[Measurement],
    peers: Sequence[Sequence[Sample]],
    spread: LaunchSpread = SHIPPED,
    longer: Interval | None = None,
) -> TrainingTime | None:
    """The training time of a cell from its launches; the arguments are those of `project`.

    `sizes.train_batches` must be known. Returns None if no step was measured.
    """
    raw = samples_of(launches, cycle)
    batches = sizes.train_batches
    if not raw or not batches:
        return None
    whole_s, trends = _whole_epoch(launches, batches)
    everywhere = [*launches, *earlier]
    profile = None if whole_s is not None else profile_of(everywhere, batches, spread, cycle)
    if whole_s is not None:
        longer = None
    if longer is not None:
        profile = None
    if profile is not None or longer is not None:
        trends = []
    replayed = bool(loads) and not trends and profile is None
    samples = [sample_of_load(load, batches) for load in loads] if replayed else raw
    groups = [samples_of(earlier, cycle), *peers]
    # a replayed epoch begins with its first batch; with equal steps, that wait must be left out
    waits = [] if replayed else [w for w in map(mean_wait_s, launches) if w is not None]
    later = later_epochs(everywhere, cycle, spread) if sizes.epochs != 1 else None
    content = content_of(launches, batches)

    def step(horizon: int) -> Interval:
        predicted = prediction_interval(samples, horizon, groups, spread=spread, content=content)
        return cautious(predicted, samples, raw)

    noise = 1.0 - (content.share if content is not None else 0.0)
    differ = profile is None and launches_differ([samples, *groups], spread, noise)
    differing = [LAUNCHES_DIFFER] if differ else []
    per_epoch, per_run = step(batches), step(batches * (sizes.epochs or 1))
    found = TrainingTime(
        per_epoch=per_epoch,
        per_run=per_run,
        wait_s=sum(waits) / len(waits) if waits else 0.0,
        whole_s=whole_s,
        later=later.factor if later is not None else None,
        trends=tuple(trends),
        flags=(*_flags(samples, len(earlier), whole_s), *differing),
        lacking=LAUNCHES_DIFFER if spread_share(samples, spread=spread) > 0.5 else FEW_STEPS,
    )
    if longer is not None:
        return _longer(found, longer)
    if profile is not None:
        return _along_the_epoch(found, profile, everywhere, cycle, spread)
    if trends:
        return _following_trends(found, launches, batches)
    return _beyond_the_begin(found, everywhere, raw, batches)


def _beyond_the_begin(
    found: TrainingTime, launches: Sequence[Measurement], raw: Sequence[Sample], batches: int
) -> TrainingTime:
    """The training time, wider if only an epoch's first steps were seen and they changed pace."""
    seen = first_batches_only(launches)
    if seen is None or seen >= batches:
        return found
    per_epoch, per_run = (
        beyond_the_begin(step, raw, batches) for step in (found.per_epoch, found.per_run)
    )
    if per_epoch is None or per_run is None:
        return found
    flags = (*found.flags, NOT_STEADY)
    return replace(found, per_epoch=per_epoch, per_run=per_run, flags=flags)


def _longer(found: TrainingTime, factor: Interval) -> TrainingTime:
    """The same, scaled by another cell's factor for the whole epoch."""
    per_epoch, per_run = (
        Interval(
            mean=step.mean * factor.mean, low=step.low * factor.low, high=step.high * factor.high
        )
        for step in (found.per_epoch, found.per_run)
    )
    flags = tuple(flag for flag in found.flags if flag not in (SLOWER, FASTER))
    return replace(found, per_epoch=per_epoch, per_run=per_run, flags=(*flags, VARIES))


def _along_the_epoch(
    found: TrainingTime,
    profile: Profile,
    launches: Sequence[Measurement],
    cycle: int,
    spread: LaunchSpread,
) -> TrainingTime:
    """The same, if steps take another time elsewhere in the epoch."""
    samples = [s for s in samples_of(launches, cycle) if s.mean > 0]
    steps = sum(s.n_eff for s in samples)
    errors = sum(s.variance / s.n_eff / s.mean**2 for s in samples) / len(samples) ** 2
    # launches at different places do not show how launches differ, so the known spread counts
    launch = Sample(mean=1.0, variance=errors * steps, n=ceil(steps), n_eff=steps)
    unsure = prediction_interval([launch], steps, spread=spread)
    step = Interval(
        mean=profile.mean_s, low=profile.low_s * unsure.low, high=profile.high_s * unsure.high
    )
    flags = tuple(flag for flag in found.flags if flag not in (SLOWER, FASTER))
    return replace(found, per_epoch=step, per_run=step, flags=(*flags, VARIES))


def _whole_epoch(launches: Sequence[Measurement], batches: int) -> tuple[float | None, list[Trend]]:
    """Mean seconds of whole epochs after their first batch, and the trends that still count.

    If steps get slower, one whole epoch says more than all windows at its beginning.
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


def _flags(
    samples: Sequence[Sample],
    earlier: int,
    whole_s: float | None,
) -> list[str]:
    flags = [flag for sample in samples for flag in sample.flags]
    if whole_s is not None:  # the whole epoch was seen, so nothing is extrapolated
        flags = [flag for flag in flags if flag not in (SLOWER, FASTER)]
    # other cells' launches show how launches differ, but two of this cell may both have been lucky
    few = len(samples) + earlier < LEAST_LAUNCHES
    if few or sum(s.n for s in samples) < LEAST_STEPS:
        flags.append(PROVISIONAL)
    return flags


def _following_trends(
    found: TrainingTime, launches: Sequence[Measurement], batches: int
) -> TrainingTime:
    """The same, if the steps of an epoch follow trends."""
    before = min(first_throughput_step(m) for m in launches)
    per_epoch, per_run = (
        _trending(found.trends, before, batches, step) for step in (found.per_epoch, found.per_run)
    )
    return replace(found, per_epoch=per_epoch, per_run=per_run)


def _trending(trends: Sequence[Trend], before: int, batches: int, step: Interval) -> Interval:
    """The mean step of an epoch whose steps follow the trends, with `step`'s uncertainty added."""
    epochs = [trending_epoch(trend, before, batches) for trend in trends]
    count, unsure = len(epochs), step.mean or 1.0
    return Interval(
        mean=sum(e.mean_s for e in epochs) / count,
        low=sum(e.low_s for e in epochs) / count * step.low / unsure,
        high=sum(e.high_s for e in epochs) / count * step.high / unsure,
    )
