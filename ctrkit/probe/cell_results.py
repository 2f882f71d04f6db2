"""What the trials so far say about a cell: its launches, projection and costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ctrkit.core.child_records import Inspection, Measurement
from ctrkit.core.config import Cell
from ctrkit.core.launch_spread import SHIPPED, LaunchSpread
from ctrkit.measure.drift import Launched, drift_factor
from ctrkit.measure.places import batches_seen, longer_elsewhere
from ctrkit.measure.projection import Projection, project, with_drift
from ctrkit.measure.samples import FASTER, SLOWER, Sample
from ctrkit.measure.statistics import Interval
from ctrkit.measure.steps import (
    data_wait_share,
    mean_step_s,
    sample_of_measurement,
    samples_of,
    sizes_of,
)
from ctrkit.measure.terms import NOT_MEASURED
from ctrkit.measure.warm_up import split_warm_up
from ctrkit.probe.beside import launches_beside
from ctrkit.probe.predict import compute_trial, nearest_loader, predict, sizes_for
from ctrkit.probe.same_epoch import launches_of_the_same_epoch
from ctrkit.probe.trials import Trial, compute_key
from ctrkit.probe.windows import LEAST_TIMED, Costs, workers_start_s


def full_trials(cell: Cell, trials: Sequence[Trial]) -> list[Trial]:
    """The full trials of a cell that count: the ok ones, else those that the budget cut."""
    full = [t for t in trials if t.request.kind == "full" and t.cell == cell]
    return [t for t in full if t.ok] or [t for t in full if t.usable]


def full_launches(cell: Cell, trials: Sequence[Trial]) -> list[Measurement]:
    """Measurements of the full trials of a cell that count."""
    return _measurements(full_trials(cell, trials))


def _measurements(trials: Sequence[Trial]) -> list[Measurement]:
    return [t.result.measurement for t in trials if t.result.measurement is not None]


def turn_of(cell: Cell) -> int:
    """The number of steps in which every worker delivers once."""
    return max(1, cell.workers)


def project_cell(
    cell: Cell,
    trials: Sequence[Trial],
    inspection: Inspection,
    *,
    ranking: bool = False,
    beside: Sequence[Trial] = (),
) -> Projection | None:
    """The projection of a cell that was really run.

    It uses the launches made after the cell was chosen, if there are any: the earlier ones were the
    lucky ones. For `ranking` it uses all of them. `beside`: trials that timed a script's validation
    and checkpoints, if other than `trials`.
    """
    launches = full_trials(cell, trials)
    confirming = [] if ranking else [t for t in launches if t.request.confirms]
    earlier = [t for t in launches if t not in confirming] if confirming else []
    loads = [t.load for t in confirming or launches]
    step_alone = compute_trial(cell, trials)
    also = _measurements([step_alone] if step_alone else [])
    projection = project(
        _measurements(confirming or launches),
        sizes_for(inspection, cell.batch_size),
        also=also,
        loads=[] if None in loads else [load for load in loads if load is not None],
        cycle=turn_of(cell),
        earlier=_measurements(earlier),
        peers=_peers(cell, trials),
        elsewhere=launches_of_the_same_epoch(cell, trials),
        beside=launches_beside(cell, beside or trials),
        spread=inspection.launch_spread or SHIPPED,
        longer=_longer_elsewhere(cell, trials, inspection),
    )
    if projection is not None and not inspection.has_task:  # nothing to save, no metrics
        flags = [flag for flag in projection.flags if flag not in NOT_MEASURED]
        projection = replace(projection, flags=flags)
    drift = drift_of(trials, inspection.launch_spread or SHIPPED)
    return with_drift(projection, drift) if projection and drift else projection


def _longer_elsewhere(
    cell: Cell, trials: Sequence[Trial], inspection: Inspection
) -> Interval | None:
    """The factor for the unseen rest of an epoch, from the cell that saw most of it.

    So all cells are projected by what one has seen, at batches that they have in common: a short
    window at the epoch's beginning is no gain if batches cost more later.
    """
    alike = {t.cell: None for t in trials if t.request.kind == "full" and t.usable
             and t.cell.batch_size == cell.batch_size}  # fmt: skip
    launches = {other: full_launches(other, trials) for other in alike}
    own = launches.get(cell)
    most = max(launches, key=lambda other: batches_seen(launches[other]), default=cell)
    sizes = sizes_for(inspection, cell.batch_size)
    known = sizes_of(launches[most], sizes) if own and most != cell else None
    if not own or known is None or not known.train_batches:
        return None
    spread = inspection.launch_spread or SHIPPED
    return longer_elsewhere(own, launches[most], known.train_batches, spread, turn_of(most))


def _peers(cell: Cell, trials: Sequence[Trial]) -> list[list[Sample]]:
    """Launches of the other cells on the same device that were launched more than once."""
    others = {t.cell: None for t in trials if t.request.kind == "full" and t.cell != cell}
    groups = [
        samples_of(full_launches(other, trials), turn_of(other))
        for other in others
        if other.device == cell.device
    ]
    return [group for group in groups if len(group) > 1]


def drift_of(trials: Sequence[Trial], spread: LaunchSpread = SHIPPED) -> float | None:
    """The factor by which the cell that ran first was slower when it ran again last.

    None if it was not run again, or if launches of a cell differ as much by chance. Launches at
    different places of an epoch are not compared, because the data may differ there.
    """
    full = [t for t in trials if t.request.kind == "full" and t.usable]
    launched = [one for i, t in enumerate(full) for one in _launched(t, i / max(1, len(full) - 1))]
    cell = full[0].cell if full else None
    own = [(m, one) for t, m, one in launched if t.cell == cell]
    same = [one for m, one in own if m.first_batch == own[0][0].first_batch]
    if len(same) < 2:
        return None
    begin, end = same[0], same[-1]
    # if steps get slower all the time, a longer window has a slower mean
    if any(one.sample.has(flag) for one in (begin, end) for flag in (SLOWER, FASTER)):
        return None
    groups = [
        [one for t, _, one in launched if t.cell == other and one is not end]
        for other in {t.cell: None for t in full}
    ]
    return drift_factor(begin.sample, end.sample, groups, spread)


def _launched(trial: Trial, at: float) -> list[tuple[Trial, Measurement, Launched]]:
    """The trial, its measurement and its steps, made at the share `at` of the probe, in a list.

    The list is empty if the trial failed or measured no step.
    """
    measured = trial.result.measurement
    sample = sample_of_measurement(measured, turn_of(trial.cell)) if measured else None
    return [(trial, measured, Launched(at=at, sample=sample))] if measured and sample else []


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The value that ranks a cell that was run: the projected total, else seconds per row.

    `relative_half` is the uncertainty of its mean, as a share.
    """

    value: float
    relative_half: float


#: Terms of an epoch, besides training, that depend on the cell; the others hardly do.
_TERMS_OF_THE_CELL = ("restart", "teardown")


def objective_of(
    cell: Cell, trials: Sequence[Trial], inspection: Inspection, step: Interval
) -> Objective:
    """The objective of a cell from all its launches; `step` is their mean.

    The whole run counts: if restarts take much of it and were timed only once or twice, steps alone
    do not distinguish two cells. A term's interval is for one more event; at most half of its
    variance is that of the mean.
    """
    projection = project_cell(cell, trials, inspection, ranking=True)
    if projection is None or projection.objective_s <= 0:
        return Objective(value=step.mean / cell.batch_size, relative_half=step.relative_half)
    total = projection.total.mean
    training = projection.terms["training"].mean * step.relative_half
    others = [projection.terms[name].half / math.sqrt(2) for name in _TERMS_OF_THE_CELL]
    half = math.hypot(training, *others)
    return Objective(value=projection.objective_s, relative_half=half / total)


def _nearest_launch(cell: Cell, trials: Sequence[Trial]) -> Trial | None:
    """The whole launch of the same step with the nearest number of workers, the cell's own first.

    It stands in for the step alone where the budget has no room for that.
    """
    like = [
        t for t in trials
        if t.request.kind == "full" and t.usable and t.result.measurement is not None
        and compute_key(t.cell) == compute_key(cell)
    ]  # fmt: skip
    return min(
        like, key=lambda t: (t.cell != cell, abs(t.cell.workers - cell.workers)), default=None
    )


def _with_more_workers(stand_in: Trial, cell: Cell) -> float:
    """The step of a cell with more workers, as a share of that of the launch that stands in."""
    measured, own = stand_in.result.measurement, stand_in.cell
    waits = data_wait_share(measured) if measured is not None else None
    if waits is None or stand_in.request.kind != "full" or cell.workers <= own.workers:
        return 1.0
    return max(1 - waits, max(1, own.workers) / cell.workers)


def costs_of(cell: Cell, trials: Sequence[Trial], inspection: Inspection, cores: int) -> Costs:
    """The expected costs of a trial of this cell, as far as trials have shown them."""
    measured = [t.result.measurement for t in trials if t.result.measurement]
    start_s = max((m.startup_s for m in measured if m.startup_s is not None), default=None)
    saved_s = trials[-1].result.saved_s if trials else 0.0
    costs = Costs()
    if start_s is not None:
        costs = Costs(launch_s=max(0.0, start_s - saved_s) + 0.5, start_s=start_s + 0.5)
    loader = nearest_loader(cell, trials)
    alone = loader.result.measurement if loader and loader.cell.workers else None
    workers_s = workers_start_s(cell, costs.start_s)
    if cell.workers and alone is not None and alone.first_batch_s is not None:
        workers_s = alone.first_batch_s
    costs = replace(costs, workers_s=workers_s)
    step = compute_trial(cell, trials) or _nearest_launch(cell, trials)
    if step is None or step.result.measurement is None:
        return costs
    parts = step.result.measurement
    step_s = (mean_step_s(parts) or 0.0) * _with_more_workers(step, cell)
    known = predict(cell, trials, inspection, cores)
    validation = split_warm_up(parts.validation_batch_s)[0]
    sizes = sizes_for(inspection, cell.batch_size)
    return replace(
        costs,
        step_s=max(step_s, known.step.mean if known else 0.0),
        validation_batch_s=sum(validation) / len(validation) if validation else step_s / 3,
        checkpoint_s=max(parts.checkpoint_s, default=0.0),
        metrics_s=max(parts.metrics_s, default=0.0),
        validation_batches=(sizes.validation_batches if sizes else None) or LEAST_TIMED,
    )
