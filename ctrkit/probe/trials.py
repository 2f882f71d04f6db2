"""One launch of a cell: its request, its result, and its row of `trials.parquet`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from ctrkit.core.child_records import Measurement
from ctrkit.core.config import Cell, RunSizes, TrialKind, WindowPlan
from ctrkit.core.memory_points import MemoryPoint
from ctrkit.core.progress import Stage
from ctrkit.core.records import COMPLETE, TrialRecord
from ctrkit.core.script_records import ScriptSeen
from ctrkit.measure.loads import load_of
from ctrkit.measure.projection import Projection
from ctrkit.measure.replay import Load
from ctrkit.measure.statistics import Interval, mean_interval
from ctrkit.measure.steps import (
    data_wait_share,
    mean_step_s,
    rows_per_s,
    sample_of_measurement,
    stage_means_s,
    steps_measured,
)
from ctrkit.measure.warm_up import split_warm_up
from ctrkit.supervise.gpu import GpuUse

#: A trial that ended early counts as a measurement from so many steps on.
ENOUGH_STEPS = 2


@dataclass(frozen=True, kw_only=True)
class TrialRequest:
    """A launch to make.

    Attributes:
        kind: `full`, `compute` or `loader`.
        cell: the cell to launch.
        windows: how much it measures at most.
        confirms: its cell was chosen before, by other launches, and is projected from this one.
            Such a launch is a process started anew, like the real run.
        label: shown to people instead of the cell, if that is not yet known.
    """

    kind: TrialKind
    cell: Cell
    windows: WindowPlan = field(default_factory=WindowPlan)
    confirms: bool = False
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """The result of a launch.

    A trial that its deadline cut has the verdict `skipped`, and may have measured something.

    Attributes:
        interrupted: the user ended it; nothing may be launched after it.
        evidence: a path relative to the run folder.
        flags: what happened to it from outside.
        exit_code: of a process that ended by itself.
        seen: what the observer of a script saw.
        gpu_use: what GPUs did during its steps.
        stage: the stage in which it failed.
        misused: it failed by bad input that only the child could notice.
        saved_s: seconds by which a forked launch begins sooner than one started anew.
        memory: memory of its processes between steps.
    """

    verdict: str
    reason: str = ""
    measurement: Measurement | None = None
    wall_s: float | None = None
    peak_rss_bytes: int | None = None
    evidence: str | None = None
    interrupted: bool = False
    flags: tuple[str, ...] = ()
    exit_code: int | None = None
    seen: ScriptSeen | None = None
    gpu_use: GpuUse = field(default_factory=GpuUse)
    stage: str = ""
    misused: bool = False
    saved_s: float = 0.0
    memory: tuple[MemoryPoint, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A request and its result.

    Attributes:
        launch: its number, from 1, among trials of this cell and kind.
        is_salvaged: the budget cut it, and without anything better, any of its steps counts.
    """

    request: TrialRequest
    result: TrialResult
    launch: int
    is_salvaged: bool = False

    @property
    def cell(self) -> Cell:
        """The cell that was launched."""
        return self.request.cell

    @property
    def ok(self) -> bool:
        """Whether it ran to its end and measured its steps, even if its process did not end."""
        return self.result.verdict in COMPLETE and self._steps() > 0

    @property
    def failed(self) -> bool:
        """Whether it got a verdict of its own and no result.

        A trial that the budget cut did not fail.
        """
        return self.result.verdict not in ("ok", "skipped", "refused") and not self.ok

    @property
    def failed_elsewhere(self) -> bool:
        """Whether a step raised an error after the loader had skipped batches at ctrkit's request.

        That says nothing about its cell: the data may require reading in order, or may be broken
        there for every cell.
        """
        result, measured = self.result, self.result.measurement
        raised = self.failed and result.verdict == "crashed" and result.stage == Stage.STEP.label
        return raised and measured is not None and measured.first_batch > 0

    @property
    def usable(self) -> bool:
        """Whether it is ok, or was cut by the budget after measuring enough."""
        enough = 1 if self.is_salvaged else ENOUGH_STEPS
        cut = self.result.verdict == "skipped" and self._steps() >= enough
        return self.ok or cut

    @cached_property
    def load(self) -> Load | None:
        """The batches of its first epoch, for replay; None if they cannot be replayed."""
        measurement = self.result.measurement
        return None if measurement is None else load_of(measurement, self.cell)

    def _steps(self) -> int:
        measurement = self.result.measurement
        return 0 if measurement is None else steps_measured(measurement)


def told_of_place(trial: Trial) -> Trial:
    """The trial; if it failed elsewhere, its reason explains what that may mean."""
    result, measured = trial.result, trial.result.measurement
    if measured is None or not trial.failed_elsewhere:
        return trial
    words = (
        f"{result.reason}. Before this step ctrkit had left out {measured.first_batch:,} batches, "
        "to measure further down the epoch. If the data can only be read in order, no run fails "
        "like this; else a run that gets there does. Later launches leave nothing out"
    )
    return replace(trial, result=replace(result, reason=words))


Launch = Callable[[TrialRequest, float], TrialResult]
"""`launch(request, deadline_s)` runs a trial in its own process and returns the result.

The deadline is on the search's clock and may be infinite. At the deadline, a trial that still makes
progress is cut; a silent one is judged to the end, so a launch may return late.
"""


def compute_key(cell: Cell) -> tuple[object, ...]:
    """What the training step alone depends on: cells with equal keys share a compute trial."""
    return cell.device, cell.batch_size, cell.threads, cell.nproc, *cell.numerics.items()


def loader_key(cell: Cell) -> tuple[object, ...]:
    """What the loader alone depends on. The device matters only if batches end up on it.

    Prefetch and persistence change what is ready when, not how fast a batch is made.
    """
    on_device = cell.device if cell.loader == "resident" or cell.pin else None
    return (
        cell.loader, cell.workers, cell.start_method, cell.batch_size, on_device, cell.nproc
    )  # fmt: skip


def record_of(trial: Trial, projection: Projection | None = None) -> TrialRecord:
    """The row of a launched trial; `projection` is its cell's."""
    request, result = trial.request, trial.result
    measured = result.measurement or Measurement(kind=request.kind)
    sample = sample_of_measurement(measured, max(1, request.cell.workers))
    step = mean_interval([sample]) if sample else None
    measured_flags = projection.flags if projection else sample.flags if sample else ()
    record = TrialRecord(
        cell_id=request.cell.cell_id,
        launch=trial.launch,
        kind=request.kind,
        cell=request.cell,
        verdict=result.verdict,
        reason=result.reason,
        flags=[*result.flags, *measured_flags, *measured.notes],
        rows_per_s=_rate(measured, step),
        step_s=step.mean if step else None,
        step_s_low=step.low if step else None,
        step_s_high=step.high if step else None,
        data_wait_share=data_wait_share(measured),
        stage_s=stage_means_s([measured]),
        startup_s=measured.startup_s,
        first_batch_s=measured.first_batch_s,
        epoch_restart_s=measured.restart_s,
        validation_s=_validation_s(measured),
        metrics_s=_mean(measured.metrics_s),
        checkpoint_s=_checkpoint_s(measured),
        warm_up_s=measured.warm_up_s or None,
        peak_rss_bytes=result.peak_rss_bytes,
        peak_device_bytes=measured.peak_device_bytes,
        wall_s=result.wall_s,
        evidence=result.evidence,
    )
    return replace(record, **projected_columns(projection))


def _rate(measured: Measurement, step: Interval | None) -> float | None:
    """Rows per second at the mean step, which is of whole turns of the workers."""
    rate, window_s = rows_per_s(measured), mean_step_s(measured)
    if rate is None or not window_s or step is None or step.mean <= 0:
        return rate
    return rate * window_s / step.mean


def predicted_record(cell: Cell, projection: Projection | None, step: Interval) -> TrialRecord:
    """The row of a cell that was not run, with its step combined from parts."""
    record = TrialRecord(
        cell_id=cell.cell_id,
        launch=0,
        kind="predicted",
        cell=cell,
        verdict="skipped",
        reason="predicted from the training step and the loader, which were measured separately",
        flags=list(projection.flags if projection else ()),
        rows_per_s=cell.batch_size / step.mean if step.mean > 0 else None,
        step_s=step.mean,
        step_s_low=step.low,
        step_s_high=step.high,
    )
    return replace(record, **projected_columns(projection))


def not_run_record(cell: Cell, verdict: str, reason: str) -> TrialRecord:
    """The row of a cell without results: `refused`, or `skipped`, with the reason."""
    return TrialRecord(
        cell_id=cell.cell_id, launch=0, kind="full", cell=cell, verdict=verdict, reason=reason
    )


def projected_columns(projection: Projection | None) -> dict[str, Any]:
    """The `projected_...` fields of a record or recommendation; empty without a projection."""
    columns: dict[str, float | None] = {}
    if projection is not None:
        for name, value in (("epoch", projection.epoch), ("total", projection.run)):
            if value is None:
                continue
            columns[f"projected_{name}_s"] = value.mean
            columns[f"projected_{name}_s_low"] = value.low
            columns[f"projected_{name}_s_high"] = value.high if math.isfinite(value.high) else None
        if projection.first_epoch is not None:
            columns["projected_first_epoch_s"] = projection.first_epoch.mean
    return columns


def _validation_s(measured: Measurement) -> float | None:
    """Seconds of an epoch's validation at the measured speed.

    If its size is unknown, only the time measured.
    """
    per_batch = _mean(list(split_warm_up(measured.validation_batch_s)[0]))
    if per_batch is None:
        return None
    sizes = measured.sizes or RunSizes()
    batches = sizes.validation_batches or len(measured.validation_batch_s)
    around_s = (measured.validation_restart_s or 0.0) + (measured.validation_teardown_s or 0.0)
    starts_s = around_s * (sizes.validations or 1)
    return starts_s + per_batch * batches


def _checkpoint_s(measured: Measurement) -> float | None:
    """Seconds of an epoch's checkpoints at the measured speed; one if they were not counted."""
    each = _mean(measured.checkpoint_s)
    counted = measured.sizes.checkpoints if measured.sizes else None
    return None if each is None else each * (counted or 1)


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
