"""Predicts a cell that was not run from its training step and its loader, each measured alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ctrkit.config import Cell, RunSizes
from ctrkit.measure.projection import LOW_CONFIDENCE, Projection, project_steps
from ctrkit.measure.replay import THREAD_QUEUE, cpu_floor_s, steady_step_s
from ctrkit.measure.statistics import PROVISIONAL, Interval, interval
from ctrkit.measure.steps import cpu_per_step_s, mean_step_s, sizes_of, step_times_s
from ctrkit.probe.trials import Trial, compute_key, loader_key
from ctrkit.records import Inspection, Measurement

#: Relative half-width of a combined step: what loader and step share beside the cores (memory
#: bandwidth, locks) is in neither measurement. Assumed; a real launch replaces it.
ASSUMED_ERROR = 0.15
_REPLAYED_STEPS = 50


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A cell's step, combined: both ceilings and what follows for the two together, in seconds."""

    cell: Cell
    step: Interval
    compute_step_s: float
    loader_step_s: float
    projection: Projection | None

    @property
    def objective(self) -> float:
        """What cells are ranked by: the projected total, else seconds per row."""
        if self.projection is not None:
            return self.projection.total.mean
        return self.step.mean / self.cell.batch_size


def sizes_for(inspection: Inspection, batch_size: int) -> RunSizes | None:
    """The real run's sizes at another batch size, as far as rows or batches are known."""
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
    )


def _batches(rows: int | None, batches: int | None, known: int, batch_size: int) -> int | None:
    if rows is None and batches is not None:
        rows = batches * known
    return None if rows is None else -(-rows // batch_size)


def service_s(cell: Cell, step_s: float) -> float:
    """Seconds that one worker takes over a batch; alone the loader delivers every `step_s`."""
    return step_s * max(1, cell.workers)


def nearest_loader(cell: Cell, trials: Sequence[Trial]) -> Trial | None:
    """The loader trial to predict this cell from: its own, else of the closest worker count."""
    usable = [t for t in trials if t.request.kind == "loader" and t.usable]
    same = [
        t
        for t in usable
        if t.cell.loader == cell.loader
        and t.cell.batch_size == cell.batch_size
        and (cell.loader != "resident" or t.cell.device == cell.device)
    ]
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
    """Combine the ceilings of a cell by replay; None where one of them was not measured.

    On device `cpu` the step is at least what the cores need for both (DESIGN, section 6).
    """
    compute, loader = compute_trial(cell, trials), nearest_loader(cell, trials)
    if compute is None or loader is None:
        return None
    step_alone, batch_alone = compute.result.measurement, loader.result.measurement
    assert step_alone is not None
    assert batch_alone is not None
    compute_s, loader_s = mean_step_s(step_alone), mean_step_s(batch_alone)
    if not compute_s or loader_s is None:
        return None
    service = service_s(loader.cell, loader_s)
    mean = _together_s(cell, service, _consumer_s(step_alone, compute_s))
    mean = max(mean, _floor_s(cell, step_alone, batch_alone, compute_s, cores))
    step = interval(mean, ASSUMED_ERROR * mean)
    return Prediction(
        cell=cell,
        step=step,
        compute_step_s=compute_s,
        loader_step_s=service / max(1, cell.workers),
        projection=_project(cell, step, mean - compute_s, step_alone, batch_alone, inspection),
    )


def _consumer_s(step_alone: Measurement, mean_s: float) -> list[float]:
    """Measured steps to replay, brought to the window's mean; few are enough."""
    times = step_times_s(step_alone)[:_REPLAYED_STEPS]
    if not times or sum(times) <= 0:
        return [mean_s]
    factor = mean_s * len(times) / sum(times)
    return [seconds * factor for seconds in times]


def _together_s(cell: Cell, service: float, consumer_s: Sequence[float]) -> float:
    workers, prefetch = cell.workers, cell.prefetch or 1
    if cell.loader == "thread":
        workers, prefetch = 1, THREAD_QUEUE + 1  # see `replay_thread`
    return steady_step_s(service, consumer_s, workers=workers, prefetch=prefetch)


def _floor_s(
    cell: Cell, step_alone: Measurement, batch_alone: Measurement, compute_s: float, cores: int
) -> float:
    step_cpu_s, fetch_cpu_s = cpu_per_step_s(step_alone), cpu_per_step_s(batch_alone)
    if cell.device != "cpu" or step_cpu_s is None or fetch_cpu_s is None:
        return 0.0
    # more cores than counted are at work where hardware threads help
    return cpu_floor_s(step_cpu_s, fetch_cpu_s, max(float(cores), step_cpu_s / compute_s))


def _project(
    cell: Cell,
    step: Interval,
    wait_s: float,
    step_alone: Measurement,
    batch_alone: Measurement,
    inspection: Inspection,
) -> Projection | None:
    sizes = sizes_of([step_alone, batch_alone], sizes_for(inspection, cell.batch_size))
    if sizes is None or sizes.train_batches is None:
        return None
    # the loader's trial knows the restart, the step's its start-up, validation and checkpoint
    rest = Measurement(
        kind="predicted",
        startup_s=step_alone.startup_s,
        first_batch_s=batch_alone.first_batch_s,
        restart_s=batch_alone.restart_s,
        teardown_s=batch_alone.teardown_s,
        validation_batch_s=step_alone.validation_batch_s,
        validation_restart_s=step_alone.validation_restart_s,
        checkpoint_s=step_alone.checkpoint_s,
        stages=step_alone.stages,
    )
    return project_steps(
        per_epoch=step,
        per_run=step,
        wait_s=max(0.0, wait_s),
        measurements=[rest],
        sizes=sizes,
        flags=[PROVISIONAL, LOW_CONFIDENCE],
    )
