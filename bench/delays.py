"""A workload whose stages take as long as the variable DELAYS says: JSON, seconds by stage.

Beside the stages: `payload_bytes` of each batch, `batches` of an epoch, and `burn`, the stages that
use the processor for their time instead of sleeping.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, Dataset, Sampler

from ctrkit.child.workloads.iterable_loader import IterableLoader
from ctrkit.child.workloads.protocol import Mark, Task, Workload
from ctrkit.core.config import Cell, RunSizes

ROWS = 4


def delays() -> dict[str, Any]:
    return dict(json.loads(os.environ["DELAYS"]))


def spend(stage: str, parts: int = 1) -> None:
    """Spend the stage's time, or one of so many equal parts of it."""
    wanted = delays()
    seconds = wanted.get(stage, 0.0) / parts
    if stage not in wanted.get("burn", ()):
        time.sleep(seconds)
        return
    until_s = time.perf_counter() + seconds
    while time.perf_counter() < until_s:
        pass


class Rows(Dataset[int]):
    """Row numbers; each takes its part of the time of a batch."""

    def __getitem__(self, index: int) -> int:
        spend("fetch", ROWS)
        return index


class Order(Sampler[int]):
    """Row numbers in order; without workers, the delay of an epoch's start is spent here."""

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def __iter__(self) -> Iterator[int]:
        if not self.workers:
            spend("startup")
        return iter(range(len(self)))

    def __len__(self) -> int:
        return int(delays()["batches"]) * ROWS


def collate(rows: list[int]) -> tuple[list[int], bytes]:
    spend("collate")
    return rows, bytes(int(delays().get("payload_bytes", 0)))


def start_worker(_worker: int) -> None:
    spend("startup")


class DelayedTask(Task):
    """A training step that only takes time."""

    def transfer(self, batch: Any) -> Any:
        return batch

    def train_step(self, batch: Any, mark: Mark) -> None:
        for stage in ("forward", "backward", "optimizer"):
            spend(stage)
            mark(stage)


class DelayedWorkload(Workload):
    """A workload of this loader and this step."""

    name = "delays"
    axes = ("workers", "start_method", "prefetch")

    def default_batch_size(self) -> int:
        return ROWS

    def sizes(self, batch_size: int) -> RunSizes:
        batches = int(delays()["batches"])
        return RunSizes(epochs=2, train_rows=batches * ROWS, train_batches=batches)

    def train_loader(self, cell: Cell) -> IterableLoader:
        options: dict[str, Any] = {}
        if cell.workers:
            options = {
                "num_workers": cell.workers,
                "prefetch_factor": cell.prefetch,
                "multiprocessing_context": cell.start_method,
                "worker_init_fn": start_worker,
            }
        return IterableLoader(
            DataLoader(
                Rows(),
                batch_size=ROWS,
                sampler=Order(cell.workers),
                collate_fn=collate,
                **options,
            )
        )

    def make_task(self, cell: Cell) -> DelayedTask:
        return DelayedTask()


workload = DelayedWorkload()
