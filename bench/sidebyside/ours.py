"""The workload of bench/loadtune.py for ctrkit: the axes that loadtune tunes on a CPU."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).resolve().parent))

from common import BATCH_SIZE, BATCHES, Rows, case, make_model, make_optimizer

from ctrkit.child.workloads.iterable_loader import IterableLoader
from ctrkit.child.workloads.protocol import Mark, Task, Workload
from ctrkit.core.config import Cell, RunSizes


class StepTask(Task):
    """The same step, with its stages marked."""

    def __init__(self) -> None:
        self.model = make_model()
        self.optimizer = make_optimizer(self.model)

    def transfer(self, batch: torch.Tensor) -> torch.Tensor:
        return batch

    def train_step(self, batch: torch.Tensor, mark: Mark) -> None:
        self.optimizer.zero_grad()
        loss = self.model(batch).square().mean()
        mark("forward")
        loss.backward()
        mark("backward")
        self.optimizer.step()
        mark("optimizer")


class StepWorkload(Workload):
    """One epoch count for all: what is compared is the epoch."""

    name = "loadtune"
    axes = ("workers", "start_method", "prefetch", "persistent", "threads")

    def fingerprint(self) -> str:
        return f"{self.name} {case()}"

    def default_batch_size(self) -> int:
        return BATCH_SIZE

    def sizes(self, batch_size: int) -> RunSizes:
        rows = BATCHES[case()] * BATCH_SIZE
        return RunSizes(epochs=3, train_rows=rows, train_batches=-(-rows // batch_size))

    def train_loader(self, cell: Cell) -> IterableLoader:
        options: dict[str, Any] = {}
        if cell.workers:
            options = {
                "num_workers": cell.workers,
                "prefetch_factor": cell.prefetch,
                "persistent_workers": cell.persistent,
                "multiprocessing_context": cell.start_method,
            }
        return IterableLoader(
            DataLoader(Rows(), batch_size=cell.batch_size, shuffle=True, drop_last=True, **options)
        )

    def make_task(self, cell: Cell) -> StepTask:
        return StepTask()


workload = StepWorkload()
