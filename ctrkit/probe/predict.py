"""Predicts a cell that was not run from its training step and its loader, each measured alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from ctrkit.core.child_records import Inspection, Measurement
from ctrkit.core.config import Cell, RunSizes
from ctrkit.measure.projection import LOW_CONFIDENCE, Projection, project_training
from ctrkit.measure.replay import (
    THREAD_QUEUE,
    Contention,
    Load,
    cpu_floor_s,
    fit_contention,
    steady_step_s,
)
from ctrkit.measure.statistics import PROVISIONAL, Interval, interval
from ctrkit.measure.steps import cpu_per_step_s, mean_step_s, sizes_of, step_times_s
from ctrkit.measure.training_time import TrainingTime
from ctrkit.probe.beside import launches_beside
from ctrkit.probe.trials import Trial, compute_key, loader_key
from ctrkit.probe.windows import ASSUMED_LAUNCH_S, workers_start_s

#: Relative half-width of a combined step. What loader and step share besides cores (memory
#: bandwidth, locks) is in neither measurement. This is assumed; a real launch replaces it.
ASSUMED_ERROR = 0.15
_REPLAYED_STEPS = 50
#: A cell that was run corrects other predictions by at most this factor.
_MOST_CORRECTED = 2.0


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A cell's predicted step, in seconds: both ceilings, and the two combined."""

    cell: Cell
    step: Interval
    compute_step_s: float
    loader_step_s: float
    projection: Projection | None

    @property
    def objective(self) -> float:
        """The value that ranks cells: the projected total, else seconds per row."""
        if self.projection is not None:
            return self.projection.objective_s
        return self.step.mean / self.cell.batch_size


def sizes_for(inspection: Inspection, batch_size: int) -> RunSizes | None:
    """The real run's sizes at another batch size, if rows or batches are known."""
    sizes, known = inspection.sizes, inspection.default_batch_size
    if sizes is None or batch_size == known:
        return sizes
    return RunSizes(
        epochs=sizes.epochs,
        train_rows=sizes.train_rows,
        train_batches=_batches(sizes.train_rows, sizes.train_batches, known, batch_size),
        validation_rows=sizes.validation_rows,
        validation_batches=_batches(
            sizes.validation_rows, sizes.validation_batches, known, batch_size
        ),
        patience=sizes.patience,
        validations=sizes.validations,
        checkpoints=sizes.checkpoints,
        checkpoint_every_s=sizes.checkpoint_every_s,
        validation_share=sizes.validation_share,
        checkpoint_share=sizes.checkpoint_share,
    )


def _batches(rows: int | None, batches: int | None, known: int, batch_size: int) -> int | None:
    if rows is None and batches is not None:
        rows = batches * known
    return None if rows is None else -(-rows // batch_size)


def service_s(cell: Cell, step_s: float) -> float:
    """Seconds that one worker takes for a batch, if the loader alone delivers every `step_s`."""
    return step_s * max(1, cell.workers)


def loaders_like(cell: Cell, trials: Sequence[Trial]) -> list[Trial]:
    """Usable loader trials with the same loader and batch size, and any number of workers."""
    return [
        t
        for t in trials
        if t.request.kind == "loader"
        and t.usable
        and t.cell.loader == cell.loader
        and t.cell.batch_size == cell.batch_size
        and (cell.loader != "resident" or t.cell.device == cell.device)
    ]


def nearest_loader(cell: Cell, trials: Sequence[Trial]) -> Trial | None:
    """The loader trial to predict this cell from: its own, else of the closest worker count."""
    same = loaders_like(cell, trials)
    own = [t for t in same if loader_key(t.cell) == loader_key(cell)]
    return min(own or same, key=lambda t: abs(t.cell.workers - cell.workers), default=None)


def compute_trial(cell: Cell, trials: Sequence[Trial]) -> Trial | None:
    """The usable trial of this cell's training step alone; one step is enough."""
    for trial in trials:
        if trial.request.kind == "compute" and compute_key(trial.cell) == compute_key(cell):
            measurement = trial.result.measurement
            if not trial.failed and measurement is not None and mean_step_s(measurement):
                return trial
    return None


def predict(
    cell: Cell, trials: Sequence[Trial], inspection: Inspection, cores: int
) -> Prediction | None:
    """Combine the ceilings of a cell by replay; None if one of them was not measured.

    On device `cpu`, the step takes at least the time that the cores need for both. If similar cells
    were really run, the prediction is corrected by the error of the nearest one.
    """
    parts = _parts(cell, trials, cores)
    if parts is None:
        return None
    mean = parts.step_s * _correction(cell, trials, cores)
    step = interval(mean, ASSUMED_ERROR * mean)
    wait_s = mean - parts.compute_step_s
    return Prediction(
        cell=cell,
        step=step,
        compute_step_s=parts.compute_step_s,
        loader_step_s=parts.service_s / max(1, cell.workers),
        projection=_project(cell, step, wait_s, parts, inspection, launches_beside(cell, trials)),
    )


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """A combined step: its parts and its result, in seconds.

    `loader_cell` is the cell whose loader was measured.
    """

    compute: Measurement
    loader: Measurement
    loader_cell: Cell
    compute_step_s: float
    service_s: float
    step_s: float


def _parts(cell: Cell, trials: Sequence[Trial], cores: int) -> _Parts | None:
    compute, loader = compute_trial(cell, trials), nearest_loader(cell, trials)
    if compute is None or loader is None:
        return None
    step_alone, batch_alone = compute.result.measurement, loader.result.measurement
    assert step_alone is not None
    assert batch_alone is not None
    compute_s = mean_step_s(step_alone)
    service = service_of(cell, trials, cores)
    if not compute_s or service is None:
        return None
    overhead_s = _overhead_s(cell, trials)
    together_s = _together_s(cell, service, _consumer_s(step_alone, compute_s), overhead_s)
    return _Parts(
        compute=step_alone,
        loader=batch_alone,
        loader_cell=loader.cell,
        compute_step_s=compute_s,
        service_s=service,
        step_s=max(together_s, _floor_s(cell, step_alone, batch_alone, compute_s, cores)),
    )


def service_of(cell: Cell, trials: Sequence[Trial], cores: int) -> float | None:
    """Seconds that each of the cell's workers takes for a batch; None if unknown.

    As measured with this many workers, else from the nearest two counts and the contention that
    they show.
    """
    known = _services(cell, trials)
    if cell.workers in known or not known:
        return known.get(cell.workers)
    loader = nearest_loader(cell, trials)
    alone = loader.result.measurement if loader else None
    cpu_s = cpu_per_step_s(alone) if alone else None
    # the loop's own process makes batches one by one, as a single worker would
    counts = {max(1, w): s for w, s in sorted(known.items()) if s > 0}
    near = sorted(sorted(counts, key=lambda w: abs(w - cell.workers))[:2])
    if not near:
        return 0.0
    if len(near) == 1:
        (few,) = near
        crowd = max(1.0, few / cores)
        burnt_s = counts[few] / crowd if cpu_s is None else min(cpu_s, counts[few] / crowd)
        contention = Contention(
            waiting_s=counts[few] - burnt_s * crowd, cpu_s=burnt_s, cores=float(cores)
        )
    else:
        few, many = near
        contention = fit_contention((few, counts[few]), (many, counts[many]), cores, cpu_s)
    return contention.service_s(max(1, cell.workers))


def _services(cell: Cell, trials: Sequence[Trial]) -> dict[int, float]:
    """Seconds per batch and worker, by the number of workers.

    Measured beside the step if stamps tell, which is what counts; else by the loader alone.
    """
    known: dict[int, float] = {}
    for trial in loaders_like(cell, trials):
        measurement = trial.result.measurement
        mean = mean_step_s(measurement) if measurement else None
        own = loader_key(trial.cell) == loader_key(cell)
        if mean is not None and (own or trial.cell.workers not in known):
            stamped = _mean_service_s(trial.load) if trial.cell.workers else None
            known[trial.cell.workers] = stamped or service_s(trial.cell, mean)
    for load in _loads_like(cell, trials):
        known[load.workers] = _mean_service_s(load) or known.get(load.workers, 0.0)
    return known


def _mean_service_s(load: Load | None) -> float | None:
    served = load.service_s[load.first_batches :] if load else []
    return sum(served) / len(served) if served else None


def _loads_like(cell: Cell, trials: Sequence[Trial]) -> list[Load]:
    """Loads of full trials with the same loader beside the same step."""
    if cell.loader == "thread":
        return []
    return [
        t.load
        for t in trials
        if t.request.kind == "full"
        and t.ok
        and t.cell.loader == cell.loader
        and compute_key(t.cell) == compute_key(cell)
        and t.load is not None
    ]


def _overhead_s(cell: Cell, trials: Sequence[Trial]) -> float:
    """Seconds to take a message from the queue; 0 until a launch has shown it.

    From the same loader, else from another one, whose batches have the same size.
    """
    known = [
        t
        for t in trials
        if t.request.kind == "full"
        and t.usable
        and t.cell.workers
        and t.cell.pin == cell.pin
        and t.cell.batch_size == cell.batch_size
    ]
    own = [t for t in known if t.cell.loader == cell.loader]
    paid_s = [t.load.overhead_s for t in own or known if t.load is not None]
    return sum(paid_s) / len(paid_s) if paid_s else 0.0


def _correction(cell: Cell, trials: Sequence[Trial], cores: int) -> float:
    """The factor by which the nearest similar cell was slower than predicted."""
    measured: dict[Cell, list[float]] = {}
    for trial in trials:
        like = trial.cell.loader == cell.loader and compute_key(trial.cell) == compute_key(cell)
        # what workers cost besides their batches says nothing about a cell without them
        like = like and (trial.cell.workers > 0) == (cell.workers > 0)
        # a trial that was cut short may have used only batches made ahead
        own = trial.result.measurement
        # the parts were measured at the epoch's beginning, so the correction must be, too
        if trial.request.kind == "full" and like and trial.ok and own and not own.first_batch:
            measured.setdefault(trial.cell, []).append(mean_step_s(own) or 0.0)
    nearest = min(measured, key=lambda c: abs(c.workers - cell.workers), default=None)
    parts = None if nearest is None else _parts(nearest, trials, cores)
    if nearest is None or parts is None or parts.step_s <= 0:
        return 1.0
    ratio = sum(measured[nearest]) / len(measured[nearest]) / parts.step_s
    return min(_MOST_CORRECTED, max(1 / _MOST_CORRECTED, ratio))


def _consumer_s(step_alone: Measurement, mean_s: float) -> list[float]:
    """A few measured steps to replay, scaled to the window's mean."""
    times = step_times_s(step_alone)[:_REPLAYED_STEPS]
    if not times or sum(times) <= 0:
        return [mean_s]
    factor = mean_s * len(times) / sum(times)
    return [seconds * factor for seconds in times]


def _together_s(
    cell: Cell, service: float, consumer_s: Sequence[float], overhead_s: float
) -> float:
    workers, prefetch = cell.workers, cell.prefetch or 1
    if cell.loader == "thread":
        workers, prefetch = 1, THREAD_QUEUE + 1  # see `replay_thread`
    return _steady_s(service, tuple(consumer_s), workers, prefetch, overhead_s, cell.pin)


@lru_cache(maxsize=4096)
def _steady_s(
    service: float,
    consumer_s: tuple[float, ...],
    workers: int,
    prefetch: int,
    overhead_s: float,
    pinned: bool,
) -> float:
    """The steady step; cached, so cells that differ only in how workers start are replayed once."""
    return steady_step_s(
        service, consumer_s, workers=workers, prefetch=prefetch, overhead_s=overhead_s,
        pinned=pinned,
    )  # fmt: skip


def _floor_s(
    cell: Cell, step_alone: Measurement, batch_alone: Measurement, compute_s: float, cores: int
) -> float:
    step_cpu_s, fetch_cpu_s = cpu_per_step_s(step_alone), cpu_per_step_s(batch_alone)
    if cell.device != "cpu" or step_cpu_s is None or fetch_cpu_s is None:
        return 0.0
    # with hardware threads, more cores work than are counted
    return cpu_floor_s(step_cpu_s, fetch_cpu_s, max(float(cores), step_cpu_s / compute_s))


def _project(
    cell: Cell,
    step: Interval,
    wait_s: float,
    parts: _Parts,
    inspection: Inspection,
    beside: Sequence[Measurement],
) -> Projection | None:
    step_alone, batch_alone = parts.compute, parts.loader
    sizes = sizes_of([step_alone, batch_alone], sizes_for(inspection, cell.batch_size))
    if sizes is None or sizes.train_batches is None:
        return None
    first_batch_s, restart_s = _starts_s(cell, parts)
    # the loader's trial knows the restart, the step's trial start-up, validation and checkpoint
    rest = Measurement(
        kind="predicted",
        startup_s=step_alone.startup_s,
        warm_up_s=step_alone.warm_up_s,
        first_batch_s=first_batch_s,
        restart_s=restart_s,
        teardown_s=batch_alone.teardown_s,
        validation_batch_s=step_alone.validation_batch_s,
        validation_restart_s=step_alone.validation_restart_s,
        validation_again_s=step_alone.validation_again_s,
        validation_teardown_s=step_alone.validation_teardown_s,
        validation_from=step_alone.validation_from,
        metrics_s=step_alone.metrics_s,
        checkpoint_s=step_alone.checkpoint_s,
        stages=step_alone.stages,
        complete=step_alone.complete,
    )
    training = TrainingTime(
        per_epoch=step,
        per_run=step,
        wait_s=max(0.0, wait_s),
        flags=(PROVISIONAL, LOW_CONFIDENCE),
    )
    return project_training(training, [rest], sizes, beside)


def _starts_s(cell: Cell, parts: _Parts) -> tuple[float | None, float | None]:
    """Seconds of the first batch and of a restart; assumed for another way to start workers.

    Persistent workers exist already when an epoch begins.
    """
    seen, like = parts.loader, parts.loader_cell
    same = (like.workers > 0, like.start_method) == (cell.workers > 0, cell.start_method)
    first_batch_s = seen.first_batch_s
    if cell.workers and not same and first_batch_s is not None:
        launch_s = parts.compute.startup_s or ASSUMED_LAUNCH_S
        first_batch_s = workers_start_s(cell, launch_s) + parts.service_s
    if cell.persistent and not (like.persistent and same):
        return first_batch_s, parts.service_s
    return first_batch_s, seen.restart_s if same and not like.persistent else first_batch_s
