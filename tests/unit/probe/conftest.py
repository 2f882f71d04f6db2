"""A simulated machine: a fake clock, and a fake launch that obeys windows and deadlines."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ctrkit.core.child_records import Inspection, Measurement, Stamps
from ctrkit.core.config import Cell, RunSizes
from ctrkit.core.records import TrialRecord
from ctrkit.measure.replay import steady_step_s
from ctrkit.probe.matrix import build_matrix
from ctrkit.probe.search import SearchResult, run_search
from ctrkit.probe.trials import Trial, TrialRequest, TrialResult

SIZES = RunSizes(
    epochs=15, train_rows=1_052_081, train_batches=514, validation_rows=225_446,
    validation_batches=111,
)  # fmt: skip


def make_inspection(**changes: Any) -> Inspection:
    values: dict[str, Any] = {
        "devices": ["cpu"],
        "device_names": {"cpu": "a CPU"},
        "torch_version": "2.13",
        "workload_name": "mdaf",
        "workload_fingerprint": "w",
        "data_fingerprint": "d",
        "axes": [
            "device", "loader", "workers", "start_method", "prefetch", "persistent", "pin",
            "threads", "batch_size",
        ],
        "loaders": ["rows", "batches", "thread", "resident"],
        "default_batch_size": 2048,
        "has_task": True,
        "sizes": SIZES,
    }  # fmt: skip
    return Inspection(**(values | changes))


@dataclass
class Machine:
    """Seconds of everything. `fetch_s` is by loader, per batch without workers, at batch 2048.

    `ends` maps a cell id, a kind or both as `kind:cell id` to a verdict; a hang takes `hang_s`
    however soon the deadline is.
    """

    launch_s: float = 4.0
    cores: int = 2
    step_s: Mapping[str, float] = field(default_factory=lambda: {"cpu": 0.3})
    fetch_s: Mapping[str, float] = field(
        default_factory=lambda: {"rows": 0.1, "batches": 0.01, "thread": 0.01, "resident": 0.005}
    )
    waiting: frozenset[str] = frozenset()  # loaders that use no processor
    validation_batch_s: float | None = None
    checkpoint_s: float = 0.5
    ends: Mapping[str, str] = field(default_factory=dict)
    hang_s: float = 45.0
    end_late_s: float = 0.5
    interrupt_at: int | None = None
    memory_bytes: Mapping[str, int] = field(default_factory=dict)
    sizes: RunSizes | None = SIZES
    endless: bool = False
    now_s: float = 1000.0
    requests: list[TrialRequest] = field(default_factory=list)
    rows: list[tuple[TrialRecord, Trial | None]] = field(default_factory=list)

    def clock(self) -> float:
        return self.now_s

    def launch(self, request: TrialRequest, deadline_s: float) -> TrialResult:
        self.requests.append(request)
        began_s, cell = self.now_s, request.cell
        if self.interrupt_at == len(self.requests):
            self.now_s += 1
            return TrialResult(verdict="skipped", reason="interrupted", interrupted=True)
        for key in (cell.cell_id, request.kind, f"{request.kind}:{cell.cell_id}"):
            if key in self.ends:
                self.now_s += self.hang_s if self.ends[key] == "deadlock" else self.launch_s
                return TrialResult(verdict=self.ends[key], reason="as told", evidence="evidence/x")
        run = _Launched(self, request)
        run.measure()
        if began_s + run.elapsed_s > deadline_s:
            self.now_s = max(began_s, deadline_s) + self.end_late_s
            kept = [m for at_s, m in run.saved if began_s + at_s <= deadline_s]
            measurement = kept[-1] if kept else None
            return TrialResult(verdict="skipped", reason="budget", measurement=measurement)
        self.now_s += run.elapsed_s + self.end_late_s
        return TrialResult(
            verdict="ok",
            measurement=run.saved[-1][1],
            wall_s=run.elapsed_s,
            peak_rss_bytes=self.memory_bytes.get(cell.cell_id, 10**9 * (1 + cell.workers)),
        )

    def search(
        self,
        inspection: Inspection | None = None,
        axes: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> SearchResult:
        inspection = inspection or make_inspection(devices=list(self.step_s))
        plan = build_matrix(inspection, axes, cores=self.cores, system="Linux")
        values = {"budget_s": 120.0, "cores": self.cores} | options
        return run_search(
            plan,
            inspection,
            launch=self.launch,
            clock=self.clock,
            on_record=lambda record, trial: self.rows.append((record, trial)),
            **values,
        )

    @property
    def spent_s(self) -> float:
        return self.now_s - 1000.0

    def kinds(self) -> list[str]:
        return [request.kind for request in self.requests]

    def epoch_s(self, cell: Cell) -> float:
        """What an epoch of 514 batches really takes, its validation left out."""
        workers_s = 0.8 * self.launch_s if cell.workers else 0.0
        return workers_s + 514 * self.step_of("full", cell)[0]

    def step_of(self, kind: str, cell: Cell) -> tuple[float, float]:
        """Seconds of a step and of the wait in it; loader and step share the cores of a CPU."""
        step_s, fetch_s = self.parts_s(cell)
        if kind == "compute":
            return step_s, 0.0
        workers = 1 if cell.loader == "thread" else cell.workers
        if kind == "loader" or not step_s:
            most = workers if cell.loader in self.waiting else self.cores
            alone_s = fetch_s / max(1, min(workers, most))
            return alone_s, alone_s
        prefetch = 3 if cell.loader == "thread" else cell.prefetch or 1
        together_s = steady_step_s(fetch_s, [step_s], workers=workers, prefetch=prefetch)
        if cell.device == "cpu" and cell.loader not in self.waiting:
            together_s = max(together_s, (step_s + fetch_s) / self.cores)
        return together_s, together_s - step_s

    def parts_s(self, cell: Cell) -> tuple[float, float]:
        """CPU seconds of the step and of making its batch."""
        scale = cell.batch_size / 2048
        return self.step_s[cell.device] * scale, self.fetch_s.get(cell.loader, 0.05) * scale

    def cpu_s(self, kind: str, cell: Cell) -> float:
        """CPU seconds per step."""
        step_s, fetch_s = self.parts_s(cell)
        fetch_s = 0.0 if cell.loader in self.waiting else fetch_s
        return (0.0 if kind == "loader" else step_s) + (0.0 if kind == "compute" else fetch_s)


class _Launched:
    """One trial of the simulated machine, as the real child would run it."""

    def __init__(self, machine: Machine, request: TrialRequest) -> None:
        self.machine, self.request = machine, request
        self.elapsed_s = 0.0
        self.measured = Measurement(kind=request.kind)
        self.saved: list[tuple[float, Measurement]] = []

    def note(self, **values: Any) -> None:
        import dataclasses

        self.measured = dataclasses.replace(self.measured, **values)
        self.saved.append((self.elapsed_s, self.measured))

    def measure(self) -> None:
        machine, request, plan = self.machine, self.request, self.request.windows
        cell, has_task = request.cell, request.cell.loader != "custom"
        step_s, wait_s = machine.step_of(request.kind, cell)
        workers_s = 0.8 * machine.launch_s if cell.workers and request.kind != "compute" else 0.0
        self.elapsed_s += machine.launch_s
        sizes = machine.sizes
        if sizes is not None and cell.batch_size != 2048:
            sizes = RunSizes(epochs=15, train_batches=514 * 2048 // cell.batch_size)
        self.note(startup_s=self.elapsed_s, sizes=None if machine.endless else sizes)
        first_batch_s = workers_s + wait_s
        self.elapsed_s += workers_s
        self.note(first_batch_s=first_batch_s)
        self.elapsed_s += max(1, cell.workers * (cell.prefetch or 0)) * step_s
        count = max(plan.min_steps, math.ceil(plan.window_s / step_s - 1e-9))
        count = min(count, plan.max_steps)
        asked = [self.elapsed_s + i * step_s for i in range(count)]
        self.elapsed_s += count * step_s
        self.note(
            throughput_s=count * step_s, throughput_steps=count,
            throughput_rows=count * cell.batch_size,
            cpu_s=count * machine.cpu_s(request.kind, cell),
            stages={"forward": [0.3], "backward": [0.65], "optimizer": [0.05]},
            stamps=Stamps(
                epoch=[1] * count, step=list(range(count)), window=["throughput"] * count,
                asked_s=asked, delivered_s=[a + wait_s for a in asked],
                done_s=[a + step_s for a in asked], rows=[cell.batch_size] * count,
            ),
        )  # fmt: skip
        if cell.device != "cpu" and request.kind != "loader" and has_task:
            self.elapsed_s += plan.attribution_steps * step_s
        if plan.boundary and request.kind != "compute":
            self.elapsed_s += workers_s + plan.boundary_steps * step_s
            self.note(restart_s=first_batch_s, teardown_s=0.1)
        if request.kind != "loader" and has_task:
            each_s = machine.validation_batch_s or step_s / 3
            self.elapsed_s += plan.validation_batches * each_s + (workers_s and 1.0)
            self.note(validation_batch_s=[each_s] * plan.validation_batches)
            self.elapsed_s += plan.checkpoints * machine.checkpoint_s
            self.note(checkpoint_s=[machine.checkpoint_s] * plan.checkpoints)
        self.note(complete=True)


@pytest.fixture(scope="session")
def machine() -> type[Machine]:
    """The class: `machine(step_s={"cpu": 10.0}).search(...)`."""
    return Machine


@pytest.fixture(scope="session")
def inspection() -> Any:
    """`inspection(devices=[...], ...)`."""
    return make_inspection


@pytest.fixture(scope="session")
def machine_bench() -> Any:
    """`bench/search.py` as a module."""
    folder = Path(__file__).parents[3] / "bench"
    spec = importlib.util.spec_from_file_location("bench_search", folder / "search.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(folder))
    spec.loader.exec_module(module)
    sys.path.remove(str(folder))
    return module
