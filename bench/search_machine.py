"""Simulated machines for the search: the true time of each cell, and a launcher that measures it.

Two forms. `queue` delivers batches through the replayed queue, workers and step share the cores of
a CPU. `smooth` knows no queue: loader and step blend in a power mean, workers scale with an
exponent, and each slows the step down. The search is made for the first; the second is unlike
anything that it assumes. Every constant of a machine is drawn from its seed.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ctrkit.core.child_records import Inspection, Measurement, Stamps
from ctrkit.core.config import Cell, RunSizes
from ctrkit.measure.replay import Delivery, replay
from ctrkit.probe.matrix import MatrixPlan, build_matrix
from ctrkit.probe.trials import TrialRequest, TrialResult

FORMS = ("queue", "smooth")
#: A window never has more steps than this, so that a simulation stays quick.
MOST_STEPS = 300
_LOADERS = ("rows", "batches", "thread", "resident")
_TRUTH_STEPS = 600


@dataclass
class Machine:
    """A machine whose times, in seconds, are drawn from a seed; `now_s` is its clock."""

    form: str
    seed: int
    now_s: float = 0.0
    launches: int = 0
    requests: list[TrialRequest] = field(default_factory=list)

    def __post_init__(self) -> None:
        draw = np.random.default_rng([self.seed, FORMS.index(self.form), 11])

        def between(low: float, high: float) -> float:
            return float(np.exp(draw.uniform(np.log(low), np.log(high))))

        self.cores = int(draw.choice([2, 4, 8, 16]))
        self.devices = ["cpu"] if draw.random() < 0.5 else ["cpu", "cuda"]
        self.step_s = {"cpu": between(0.02, 1.0)}
        self.step_s["cuda"] = self.step_s["cpu"] / between(1.5, 20)
        rows_s, faster = between(0.02, 1.0), between(2, 30)
        self.fetch_s = {
            "rows": rows_s, "batches": rows_s / faster, "thread": rows_s / faster * between(1, 1.5),
            "resident": between(0.001, 0.05),
        }  # fmt: skip
        kinds = [_LOADERS, ("rows", "batches"), ("rows",)]
        self.loaders = list(kinds[int(draw.integers(len(kinds)))])
        self.waiting = float(draw.uniform(0, 0.6))  # share of the fetch that burns no CPU
        self.ipc_s = between(0.0002, 0.01)
        self.launch_s = between(2.0, 6.0)
        self.start_s = {"spawn": 0.8 * self.launch_s, "fork": 0.1 * self.launch_s}
        self.launch_spread, self.step_spread = between(0.003, 0.02), between(0.03, 0.2)
        self.scaling, self.sharpness = float(draw.uniform(0.6, 1.0)), float(draw.uniform(2, 8))
        self.drag = float(draw.uniform(0, 0.3))
        batches = int(draw.integers(200, 3000))
        self.sizes = RunSizes(
            epochs=int(draw.integers(2, 16)), train_rows=batches * 256, train_batches=batches,
            validation_rows=batches * 64, validation_batches=batches // 4,
        )  # fmt: skip
        self.noise = np.random.default_rng([self.seed, FORMS.index(self.form), 12])
        self._paces_s: dict[tuple[object, ...], float] = {}

    def clock(self) -> float:
        return self.now_s

    def inspection(self) -> Inspection:
        return Inspection(
            devices=self.devices, device_names={d: d for d in self.devices}, torch_version="2",
            workload_name="simulated", workload_fingerprint="w", data_fingerprint="d",
            axes=["device", "loader", "workers", "start_method", "prefetch", "persistent",
                "batch_size", "threads"],
            loaders=self.loaders, default_batch_size=256, has_task=True, sizes=self.sizes,
        )  # fmt: skip

    def matrix(self) -> MatrixPlan:
        workers = sorted({0, 1, 2, max(1, self.cores // 2), max(1, self.cores - 1), self.cores})
        axes = {
            "workers": workers, "start_method": ["spawn", "fork"], "prefetch": [1, 2, 4],
            "persistent": [False, True],
        }  # fmt: skip
        return build_matrix(
            self.inspection(), axes, cores=self.cores, system="Linux", run_refused=True
        )

    # what is true

    def parts_s(self, kind: str, cell: Cell) -> tuple[float, float]:
        """Mean seconds of a step without its wait, and of making a batch (per worker)."""
        step_s, fetch_s = self.step_s[cell.device], self.fetch_s[cell.loader]
        hands = 1 if cell.loader == "thread" else cell.workers
        if kind == "compute" or not hands:
            return step_s, fetch_s
        step_cores = self.cores if cell.device == "cpu" and kind == "full" else 0.3
        wanted = hands * (1 - self.waiting) + step_cores
        crowd = max(1.0, wanted / self.cores) if cell.device == "cpu" else 1.0
        crowd = max(crowd, hands * (1 - self.waiting) / self.cores)
        burnt_s = fetch_s * (1 - self.waiting) * crowd
        if cell.device == "cpu" and kind == "full":
            busy = min(1.0, hands * fetch_s / step_s)  # workers use the CPU only while needed
            step_s *= 1 + (crowd - 1) * busy
        return step_s, fetch_s * self.waiting + burnt_s

    def delivery(self, kind: str, cell: Cell, count: int, pace: float) -> tuple[Delivery, Any, Any]:
        """The delivery of batches, with the service time and the consumer time of each."""
        step_s, fetch_s = self.parts_s(kind, cell)
        hands = 1 if cell.loader == "thread" else cell.workers
        depth = 3 if cell.loader == "thread" else cell.prefetch or 1
        shape = 1 / self.step_spread**2
        consumer = pace * step_s * self.noise.gamma(shape, 1 / shape, count)
        service = pace * fetch_s * self.noise.gamma(shape, 1 / shape, count)
        if kind == "loader":
            consumer = consumer * 0.0
        if kind == "compute":
            service, hands = service * 0.0, 0
        if self.form == "smooth" and kind == "full":
            return self._smooth(cell, consumer, pace)
        ready = self.start_s[cell.start_method] if cell.start_method else 0.0
        delivery = replay(
            list(map(float, service)), list(map(float, consumer)), workers=hands, prefetch=depth,
            ready_s=ready, overhead_s=self.ipc_s if cell.workers else 0.0,
        )  # fmt: skip
        return delivery, service, consumer

    def _smooth(self, cell: Cell, consumer: Any, pace: float) -> tuple[Delivery, Any, Any]:
        step_s, fetch_s = self.step_s[cell.device], self.fetch_s[cell.loader]
        hands = 1 if cell.loader == "thread" else cell.workers
        if not hands:
            wait_s = pace * fetch_s
        else:
            over = max(1.0, hands / self.cores)
            each_s = fetch_s * over / hands**self.scaling + (self.ipc_s if cell.workers else 0.0)
            slowed_s = step_s * (1 + self.drag * min(1.0, hands / self.cores))
            together_s = (each_s**self.sharpness + slowed_s**self.sharpness) ** (1 / self.sharpness)
            wait_s = pace * (together_s - step_s)
        now, delivered, waits = 0.0, [], []
        first_s = self.start_s[cell.start_method] if cell.start_method else 0.0
        for i, seconds in enumerate(consumer):
            waited = wait_s + (first_s if i == 0 else 0.0)
            now += waited
            delivered.append(now)
            waits.append(waited)
            now += float(seconds)
        return Delivery(delivered, waits, now), None, consumer

    def restart_s(self, cell: Cell, *, first: bool = False) -> float:
        """Seconds until an epoch's first batch is there; `first`: of the first epoch."""
        starts = cell.start_method and (first or not cell.persistent)
        return self.fetch_s[cell.loader] + (self.start_s[str(cell.start_method)] if starts else 0)

    def truth_s(self, cell: Cell) -> float:
        """The true seconds of the whole run, from a long stretch without noise between launches."""
        like = (cell.device, cell.loader, cell.workers, cell.prefetch)
        if like not in self._paces_s:
            keep, self.noise = self.noise, np.random.default_rng([self.seed, 13])
            delivery, _, _ = self.delivery("full", cell, _TRUTH_STEPS, 1.0)
            self.noise = keep
            half = _TRUTH_STEPS // 2
            rest_s = delivery.total_s - delivery.delivered_s[half]
            self._paces_s[like] = rest_s / (_TRUTH_STEPS - half)
        pace_s = self._paces_s[like]
        batches = self.sizes.train_batches or 0
        epoch_s = self.restart_s(cell) + batches * pace_s
        epoch_s += (self.sizes.validation_batches or 0) * self.step_s[cell.device] / 3
        once_s = self.restart_s(cell, first=True) - self.restart_s(cell)
        return self.launch_s + once_s + self.sizes.epochs * epoch_s

    # what is measured

    def launch(self, request: TrialRequest, deadline_s: float) -> TrialResult:
        """Run a trial on the machine's clock; if it reaches its deadline, it has no result."""
        self.launches += 1
        self.requests.append(request)
        measurement, took_s = self._measure(request)
        if self.now_s + took_s > deadline_s:
            self.now_s = deadline_s
            return TrialResult(verdict="skipped", reason="budget")
        self.now_s += took_s
        memory = 10**9 + request.cell.workers * 3 * 10**8
        return TrialResult(
            verdict="ok", measurement=measurement, wall_s=took_s, peak_rss_bytes=memory
        )

    def _measure(self, request: TrialRequest) -> tuple[Measurement, float]:
        cell, plan, kind = request.cell, request.windows, request.kind
        pace = float(self.noise.normal(1, self.launch_spread))
        warmup = max(1, cell.workers * (cell.prefetch or 0))
        delivery, service, consumer = self.delivery(kind, cell, warmup + MOST_STEPS, pace)
        done = [d + float(c) for d, c in zip(delivery.delivered_s, consumer, strict=True)]
        begin_s, count = done[warmup - 1], plan.min_steps
        while count < MOST_STEPS and done[warmup + count - 1] - begin_s < plan.window_s:
            count += 1
        steps = warmup + count
        stamps = Stamps(
            epoch=[1] * steps, step=list(range(1, steps + 1)),
            window=["warmup"] * warmup + ["throughput"] * count,
            asked_s=[0.0, *done[: steps - 1]], delivered_s=delivery.delivered_s[:steps],
            done_s=done[:steps], rows=[cell.batch_size] * steps,
        )  # fmt: skip
        if cell.workers and service is not None and kind != "compute":
            stamps = _stamped(stamps, service, cell, self.start_s[str(cell.start_method)], done)
        took_s = self.launch_s + done[steps - 1] + 0.7
        step_s, fetch_s = self.parts_s("compute", cell)
        burnt_s = fetch_s * (1 - self.waiting)
        cpu_s = count * (
            (step_s * self.cores if cell.device == "cpu" and kind != "loader" else 0.0)
            + (0.0 if kind == "compute" else burnt_s)
        )
        found = Measurement(
            kind=kind, startup_s=self.launch_s, first_batch_s=self.restart_s(cell, first=True),
            throughput_s=done[steps - 1] - begin_s, throughput_steps=count,
            throughput_rows=count * cell.batch_size, cpu_s=cpu_s, stamps=stamps, complete=True,
        )  # fmt: skip
        if plan.boundary and kind != "compute":
            restart_s = self.restart_s(cell) * float(self.noise.normal(1, 0.1))
            took_s += restart_s + plan.boundary_steps * step_s
            found = dataclasses.replace(found, restart_s=restart_s, teardown_s=0.05)
        if kind != "loader":
            validation = [pace * step_s / 3] * plan.validation_batches
            took_s += sum(validation) + plan.checkpoints * 0.2
            found = dataclasses.replace(
                found, validation_batch_s=validation, checkpoint_s=[0.2] * plan.checkpoints
            )
        return found, took_s


def _stamped(stamps: Stamps, service: Any, cell: Cell, ready_s: float, done: list[float]) -> Stamps:
    """The stamps, with those that the workers would have added."""
    count, workers = len(stamps.step), cell.workers
    in_flight = workers * (cell.prefetch or 1)
    start, made = [], []
    for i in range(count):
        sent_s = 0.0 if i < in_flight else stamps.delivered_s[i - in_flight]
        free_s = ready_s if i < workers else made[i - workers]
        start.append(max(sent_s, free_s))
        made.append(start[i] + float(service[i]))
    return dataclasses.replace(
        stamps, worker=[i % workers for i in range(count)], fetch_start_s=start,
        fetch_end_s=made, collate_end_s=made, sent_s=made,
    )  # fmt: skip
