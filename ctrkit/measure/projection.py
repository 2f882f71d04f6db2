"""Projected wall-clock time of an epoch and of the whole run, term by term, with intervals.

    total = start-up + epochs x (restart + batches x step + teardown + validation + checkpoint)

all epochs, no early stop. Where a second epoch goes at another pace, the first and the later ones
are projected apart; where steps get slower through the epoch, that goes on, and the bound is from
below only. An epoch is what `wall_s` of `epochs.csv` measures: the loader's restart,
training, validation and checkpoint, but not the start-up. Not covered: what changes later in the
run (throttling, a host that sleeps, memory that grows): unknowable in a short probe. The batches
that workers have ready at the begin of an epoch count only where it is replayed (`loads`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ctrkit.core.config import RunSizes
from ctrkit.core.records import Measurement
from ctrkit.measure.later_epochs import later_epochs
from ctrkit.measure.replay import Load
from ctrkit.measure.statistics import (
    FASTER,
    PROVISIONAL,
    SLOWER,
    ZERO,
    Interval,
    Sample,
    event_interval,
    interval,
    prediction_interval,
    sample_of,
    total,
)
from ctrkit.measure.steps import (
    first_throughput_step,
    mean_wait_s,
    sample_of_load,
    samples_of,
    sizes_of,
    stage_means_s,
    trends_of,
)
from ctrkit.measure.trends import Trend, trending_epoch

LEAST_STEPS = 3
LEAST_VALIDATION_BATCHES = 20
LEAST_CHECKPOINTS = 2
#: A validation batch that was never timed: a forward pass without its backward pass, so about a
#: third of a step, give or take as much again.
_VALIDATION_SHARE_OF_STEP = 1 / 3
LOW_CONFIDENCE = "low confidence"
#: Beyond this relative half-width a projection is called `low confidence`.
_WIDE = 0.25


@dataclass(frozen=True, kw_only=True)
class Projection:
    """Seconds of one future run. `terms` are of the whole run and add up to `total`.

    Terms: `startup`, `restart`, `training`, `teardown`, `validation`, `checkpoint`. `epoch` is any
    but the first, `first_epoch` that one where it differs from the others, else None. `trends` are
    those of the launches whose steps get slower or faster through an epoch.
    """

    step: Interval
    epoch: Interval
    total: Interval
    terms: dict[str, Interval]
    sizes: RunSizes
    flags: list[str] = field(default_factory=list)
    first_epoch: Interval | None = None
    trends: list[Trend] = field(default_factory=list)

    @property
    def startup(self) -> Interval:
        """What comes once a run; not part of any epoch but the first, which takes that longer."""
        return self.terms["startup"]

    def total_of(self, epochs: int) -> Interval:
        """The same run with another number of epochs."""
        if self.first_epoch is None:
            return total([self.startup, self.epoch.scaled(epochs)])
        return total([self.startup, self.first_epoch, self.epoch.scaled(epochs - 1)])


def project(
    launches: Sequence[Measurement],
    sizes: RunSizes | None,
    *,
    also: Sequence[Measurement] = (),
    loads: Sequence[Load] = (),
    cycle: int = 1,
    earlier: Sequence[Measurement] = (),
    peers: Sequence[Sequence[Sample]] = (),
) -> Projection | None:
    """Project the real run from the launches of one cell.

    Args:
        launches: measurements of fresh launches of the very same cell.
        sizes: of the real run at the cell's batch size, used where no launch knows better.
        also: other trials of the same training step (device, batch size, threads): their
            validation batches and checkpoints count where the launches have too few.
        loads: the batches of each launch, where workers stamped them: an epoch is then replayed,
            its pre-filled batches included, and not a window's mean multiplied.
        cycle: the loader's workers; without `loads`, means are taken over whole turns of them.
        earlier: launches of the cell for which it was chosen: chosen for being fast, they tell its
            spread and time its events, but not its mean.
        peers: launches of other cells, a group for each, for the spread between launches.

    Returns:
        None for an endless or unsized loader, and where no step was measured.
    """
    samples = samples_of(launches, cycle)
    sizes = sizes_of(launches, sizes)
    if not samples or sizes is None or not sizes.train_batches:
        return None
    batches = sizes.train_batches
    timed_s = _whole_epochs_s(launches, batches)
    found = trends_of(launches)
    # of steps that get slower one whole epoch says more than all windows that saw its beginning
    is_whole = bool(timed_s) and (len(timed_s) == len(launches) or bool(found))
    whole_s = sum(timed_s) / len(timed_s) if is_whole else None
    trends = [] if is_whole else found
    replayed = bool(loads) and not trends
    if replayed:
        samples = [sample_of_load(load, batches) for load in loads]
    flags = [flag for sample in samples for flag in sample.flags]
    if whole_s is not None:  # the whole epoch was seen: there is nothing to go on as it began
        flags = [flag for flag in flags if flag not in (SLOWER, FASTER)]
    if len(samples) + len(earlier) < 2 or sum(s.n for s in samples) < LEAST_STEPS:
        flags.append(PROVISIONAL)
    groups = [samples_of(earlier, cycle), *peers]
    per_epoch = prediction_interval(samples, batches, groups)
    per_run = prediction_interval(samples, batches * sizes.epochs, groups)
    if trends:
        before = min(first_throughput_step(m) for m in launches)
        per_epoch, per_run = (_trending(trends, before, batches, i) for i in (per_epoch, per_run))
    # a replayed epoch begins with its first batch; one of equal steps has to leave that wait out
    waits = [] if replayed else [w for w in map(mean_wait_s, launches) if w is not None]
    later = later_epochs([*launches, *earlier], cycle) if sizes.epochs > 1 else None
    projection = project_steps(
        per_epoch=per_epoch,
        per_run=per_run,
        wait_s=sum(waits) / len(waits) if waits else 0.0,
        whole_s=whole_s,
        later=later.factor if later is not None else None,
        measurements=[*launches, *earlier, *also],
        sizes=sizes,
        flags=flags,
    )
    return replace(projection, trends=trends)


def _trending(trends: Sequence[Trend], before: int, batches: int, step: Interval) -> Interval:
    """The mean step of an epoch whose steps follow the trends, as uncertain as `step` besides."""
    epochs = [trending_epoch(trend, before, batches) for trend in trends]
    count, unsure = len(epochs), step.mean or 1.0
    return Interval(
        mean=sum(e.mean_s for e in epochs) / count,
        low=sum(e.low_s for e in epochs) / count * step.low / unsure,
        high=sum(e.high_s for e in epochs) / count * step.high / unsure,
    )


def _whole_epochs_s(launches: Sequence[Measurement], batches: int) -> list[float]:
    """Seconds of each whole epoch after its first batch, of launches that ran one to its end."""
    return [
        m.epoch_s - (m.first_batch_s or 0.0)
        for m in launches
        if m.epoch_complete and m.epoch_batches == batches and m.epoch_s is not None
    ]


def project_steps(
    *,
    per_epoch: Interval,
    per_run: Interval,
    wait_s: float,
    measurements: Sequence[Measurement],
    sizes: RunSizes,
    flags: Sequence[str] = (),
    whole_s: float | None = None,
    later: Interval | None = None,
) -> Projection:
    """Project from a mean step that is known or predicted.

    Args:
        per_epoch: seconds per step over one epoch.
        per_run: the same over the whole run.
        wait_s: how long a step waits for its batch. The first batch's is inside the restart.
        measurements: trials that timed the rest, the most fitting ones first.
        sizes: `train_batches` must be known.
        flags: of the step; those of the other terms are added.
        whole_s: an epoch's training after its first batch, where whole epochs were timed: better
            than steps, since it has the pre-filled batches too.
        later: the training time of later epochs as a factor of the first one's; None: all alike.
    """
    batches, epochs = sizes.train_batches, sizes.epochs
    if batches is None:
        raise ValueError("the number of batches of an epoch is not known")
    raised = list(flags)
    restart = _restart(measurements, raised)
    if whole_s is None:
        whole_s = per_epoch.mean * batches - (min(wait_s, per_epoch.mean) if restart.mean else 0.0)
    teardown = _events([m.teardown_s for m in measurements]) or ZERO
    startup = _startup(measurements, restart)
    rest = {"restart": restart, "teardown": teardown}
    rest["validation"] = _validation(measurements, sizes, per_epoch, raised)
    rest["checkpoint"] = _checkpoint(measurements, raised)
    first, each = (_about(whole_s, step) for step in (per_epoch, per_run))
    training, epoch = each.scaled(epochs), total([first, *rest.values()])
    first_epoch = None
    if later is not None and epochs > 1:
        first_epoch, following = epoch, _times(first, later)
        training = total([first, _times(each, later).scaled(epochs - 1)])
        epoch = total([following, *rest.values()])
    terms = {
        "startup": startup,
        "training": training,
        **{name: term.scaled(epochs) for name, term in rest.items()},
    }
    whole = total(list(terms.values()))
    if whole.relative_half > _WIDE:
        raised.append(LOW_CONFIDENCE)
    unique = list(dict.fromkeys(raised))
    return Projection(
        step=per_run, epoch=epoch, total=whole, terms=terms, sizes=sizes, flags=unique,
        first_epoch=first_epoch,
    )  # fmt: skip


def _about(whole_s: float, step: Interval) -> Interval:
    """An epoch's training, as uncertain as its mean step."""
    if step.mean <= 0:
        return interval(whole_s, 0.0)
    factor = whole_s / step.mean
    return Interval(mean=whole_s, low=step.low * factor, high=step.high * factor)


def _times(training: Interval, factor: Interval) -> Interval:
    """A time whose factor is uncertain, too: relative errors add in quadrature."""
    mean = training.mean * factor.mean
    low = math.hypot(1 - training.low / training.mean, 1 - factor.low / factor.mean)
    high = math.hypot(training.relative_half, factor.relative_half)
    return Interval(mean=mean, low=mean * max(0.1, 1 - low), high=mean * (1 + high))


def _events(values: Sequence[float | None]) -> Interval | None:
    known = [v for v in values if v is not None]
    return event_interval(known) if known else None


def _startup(measurements: Sequence[Measurement], restart: Interval) -> Interval:
    """Until the first step, once a run: what its first batch takes longer than a restart, too.

    Workers that persist start then and never again.
    """
    startup = _events([m.startup_s for m in measurements]) or ZERO
    first = [m.first_batch_s for m in measurements if m.first_batch_s is not None]
    longer = _events([max(0.0, first_batch_s - restart.mean) for first_batch_s in first])
    return total([startup, longer]) if longer else startup


def _restart(measurements: Sequence[Measurement], flags: list[str]) -> Interval:
    """A real epoch boundary; the first batch of a launch stands in where none was reached."""
    restart = _events([m.restart_s for m in measurements])
    if restart is None:
        flags.append(PROVISIONAL)
        restart = _events([m.first_batch_s for m in measurements])
    return restart or ZERO


def _validation(
    measurements: Sequence[Measurement], sizes: RunSizes, step: Interval, flags: list[str]
) -> Interval:
    """Seconds of one validation: the loader's start and its batches."""
    batches = sizes.validation_batches
    if not batches:
        return ZERO
    samples, timed = [], 0
    for measurement in measurements:
        if measurement.validation_batch_s and timed < LEAST_VALIDATION_BATCHES:
            samples.append(sample_of(measurement.validation_batch_s))
            timed += samples[-1].n
    if timed < min(batches, LEAST_VALIDATION_BATCHES):
        flags.append(PROVISIONAL)
    if samples:
        # Trials differ by more than steps do: a cached batch waits for no loader. Pooled by size.
        mean = sum(s.mean * s.n for s in samples) / timed
        half = prediction_interval(samples, batches).half
        per_batch = interval(mean, half)
    else:
        forward = stage_means_s(measurements).get("forward")
        mean = forward if forward is not None else step.mean * _VALIDATION_SHARE_OF_STEP
        per_batch = interval(mean, mean)
    start = _events([m.validation_restart_s for m in measurements]) or ZERO
    return total([start, per_batch.scaled(batches)])


def _checkpoint(measurements: Sequence[Measurement], flags: list[str]) -> Interval:
    """One checkpoint an epoch; none where trials came to their end and had nothing to write."""
    writes = [seconds for m in measurements for seconds in m.checkpoint_s]
    if not writes:
        if not all(m.complete for m in measurements):
            flags.append(PROVISIONAL)
        return ZERO
    if len(writes) < LEAST_CHECKPOINTS:
        flags.append(PROVISIONAL)
    return event_interval(writes)
