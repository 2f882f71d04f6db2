"""Projects the wall-clock time of an epoch and of the whole run, term by term, with intervals.

    total = start-up + epochs x (restart + batches x step + teardown + saves and validations within
            + validation + metrics + checkpoint)

for all epochs, without early stop. If a second epoch has another pace, the first and the later ones
are projected apart; where steps get slower through the epoch, that goes on, and the bound is from
below only. An epoch is what `wall_s` of `epochs.csv` measures: the loader's restart,
training, validation and checkpoint, but not the start-up. Not covered: what changes later in the
run (throttling, a host that sleeps, memory that grows): unknowable in a short probe. The batches
that workers have ready at the begin of an epoch count only where it is replayed (`loads`).
What happens once an epoch is scaled by the epochs, its error with it: the mean of a kind of event
is badly known from the one or two that were timed, and that error is the same in every epoch.

The story is `project`, from a launch's stamps to the terms of a run: `steps` reads times from them,
`loads` what replay needs, `replay` delivers a whole epoch of it, `statistics` makes intervals,
`trends` and `later_epochs` say where equal steps would be wrong. `training_time` puts these
together; `terms` has what a run takes beside its training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ctrkit.core.child_records import Measurement
from ctrkit.core.config import RunSizes
from ctrkit.core.launch_spread import SHIPPED, LaunchSpread
from ctrkit.core.records import ONE_EPOCH
from ctrkit.measure.caution import drifting
from ctrkit.measure.epoch_length import has_one_epoch
from ctrkit.measure.replay import Load
from ctrkit.measure.samples import Sample
from ctrkit.measure.statistics import DRIFT, Interval, interval, total
from ctrkit.measure.steps import sizes_of
from ctrkit.measure.terms import sizes_beside, terms_beside
from ctrkit.measure.training_time import TrainingTime, training_time
from ctrkit.measure.trends import Trend

LOW_CONFIDENCE = "low confidence"
#: With a relative half-width above this, a projection is called `low confidence`.
_WIDE = 0.25


@dataclass(frozen=True, kw_only=True)
class Projection:
    """Seconds of one future run.

    Attributes:
        terms: parts of the whole run, which sum to `total`: `startup`, `restart`, `training`,
            `teardown`, `within` (interruptions between steps), `validation`, `metrics`,
            `checkpoint`. If the number of epochs is unknown, they are for a run of one epoch.
        each_epoch: the terms of `epoch`, which is any epoch except the first.
        first_epoch: the first epoch if it differs from the others, else None.
        trends: trends of launches whose steps get slower or faster through an epoch.
    """

    step: Interval
    epoch: Interval
    total: Interval
    terms: dict[str, Interval]
    sizes: RunSizes
    flags: list[str] = field(default_factory=list)
    first_epoch: Interval | None = None
    trends: list[Trend] = field(default_factory=list)
    each_epoch: dict[str, Interval] = field(default_factory=dict)

    @property
    def startup(self) -> Interval:
        """What happens once per run; the first epoch takes that much longer, no other does."""
        return self.terms["startup"]

    @property
    def run(self) -> Interval | None:
        """The whole run; None if its number of epochs is unknown (then `total` is for one)."""
        return None if self.sizes.epochs is None else self.total

    @property
    def objective_s(self) -> float:
        """The value that ranks cells: the run, or an epoch if the number of epochs is unknown."""
        return self.epoch.mean if self.run is None else self.run.mean

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
    elsewhere: Sequence[Measurement] = (),
    beside: Sequence[Measurement] = (),
    spread: LaunchSpread = SHIPPED,
    longer: Interval | None = None,
) -> Projection | None:
    """Project the real run from the launches of one cell.

    Args:
        launches: measurements of fresh launches of exactly this cell.
        sizes: sizes of the real run at the cell's batch size, used if no launch knows better.
        also: other trials of the same training step (device, batch size, threads); their validation
            batches and checkpoints count if the launches have too few.
        loads: the batches of each launch, if workers stamped them: then an epoch is replayed, with
            its pre-filled batches, instead of multiplying a window's mean.
        cycle: number of the loader's workers; without `loads`, means are over whole rounds of them.
        earlier: launches for which the cell was chosen. They were chosen for being fast, so they
            tell its spread and time its events, but not its mean.
        peers: launches of other cells, a group per cell, for the spread between launches.
        elsewhere: launches of a cell with the same epoch, which may have counted it.
        beside: launches that timed validation and checkpoint, if these do not depend on the cell.
        spread: what was known before about how launches of one cell differ.
        longer: how much longer a step takes over the whole epoch than in these launches, from
            another cell that saw more of it.

    Returns:
        The projection; None for an endless or unsized loader, and if no step was measured.
    """
    sizes = sizes_of([*launches, *earlier], sizes, elsewhere)
    if sizes is None or not sizes.train_batches:
        return None
    training = training_time(
        launches, sizes, loads=loads, cycle=cycle, earlier=earlier, peers=peers, spread=spread,
        longer=longer,
    )  # fmt: skip
    if training is None:
        return None
    projection = project_training(training, [*launches, *earlier, *also], sizes, beside)
    if has_one_epoch([*launches, *earlier]):
        return replace(projection, flags=[ONE_EPOCH, *projection.flags])
    return projection


def project_training(
    training: TrainingTime,
    measurements: Sequence[Measurement],
    sizes: RunSizes,
    beside: Sequence[Measurement] = (),
) -> Projection:
    """Project from known or predicted training times.

    Args:
        training: training time of an epoch and of the run.
        measurements: trials that timed the rest, the best fitting ones first.
        sizes: sizes of the run; `train_batches` must be known.
        beside: as in `project`.
    """
    sizes = sizes_beside(sizes, beside)
    flags, epochs = list(training.flags), sizes.epochs or 1
    startup, each_epoch = terms_beside(
        measurements, sizes, training.per_epoch, flags, beside,
        training_s=training.per_epoch.mean * (sizes.train_batches or 0),
    )  # fmt: skip
    epoch_s = _training_s(training, sizes, restart_s=each_epoch["restart"].mean)
    first, each = (_about(epoch_s, step) for step in (training.per_epoch, training.per_run))
    trained, epoch, first_epoch = each.scaled(epochs), total([first, *each_epoch.values()]), None
    following = first
    if training.later is not None and sizes.epochs != 1:
        following = _times(first, training.later)
        trained = total([first, _times(each, training.later).scaled(epochs - 1)])
        first_epoch, epoch = epoch, total([following, *each_epoch.values()])
    terms = {
        "startup": startup,
        "training": trained,
        **{name: term.scaled(epochs) for name, term in each_epoch.items()},
    }
    whole = total(list(terms.values()))
    if whole.relative_half > _WIDE:
        flags.append(LOW_CONFIDENCE)
        if math.isfinite(trained.half) and trained.half > whole.half / 2:
            flags.append(training.lacking)
    return Projection(
        step=training.per_run,
        epoch=epoch,
        total=whole,
        terms=terms,
        sizes=sizes,
        flags=list(dict.fromkeys(flags)),
        first_epoch=first_epoch,
        trends=list(training.trends),
        each_epoch={"training": following, **each_epoch},
    )


def with_drift(projection: Projection, factor: float) -> Projection:
    """The projection if the machine's pace changed by this factor during the probe."""
    first = projection.first_epoch
    return replace(
        projection,
        epoch=drifting(projection.epoch, factor),
        total=drifting(projection.total, factor),
        first_epoch=None if first is None else drifting(first, factor),
        flags=[*projection.flags, DRIFT],
    )


def _training_s(training: TrainingTime, sizes: RunSizes, *, restart_s: float) -> float:
    """Seconds of an epoch's training after its first batch, whose wait belongs to the restart."""
    if training.whole_s is not None:
        return training.whole_s
    if sizes.train_batches is None:
        raise ValueError("the number of batches in an epoch is not known")
    step_s = training.per_epoch.mean
    return step_s * sizes.train_batches - (min(training.wait_s, step_s) if restart_s else 0.0)


def _about(whole_s: float, step: Interval) -> Interval:
    """An epoch's training time, with the relative uncertainty of its mean step."""
    if step.mean <= 0:
        return interval(whole_s, 0.0)
    factor = whole_s / step.mean
    return Interval(mean=whole_s, low=step.low * factor, high=step.high * factor)


def _times(training: Interval, factor: Interval) -> Interval:
    """A time multiplied by an uncertain factor: relative errors add in quadrature."""
    mean = training.mean * factor.mean
    low = math.hypot(1 - training.low / training.mean, 1 - factor.low / factor.mean)
    high = math.hypot(training.relative_half, factor.relative_half)
    return Interval(mean=mean, low=mean * max(0.1, 1 - low), high=mean * (1 + high))
