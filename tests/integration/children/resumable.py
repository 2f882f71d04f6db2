"""Small loops to be killed and resumed: one whose state grows, one with a step that never ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch

from ctrkit.child.workloads.protocol import Task, Workload
from ctrkit.core.config import Cell, RunSizes

BATCHES, EPOCHS = 40, 2
BYTES_PER_STEP = 40_000


class Numbers:
    """Batch numbers in the order of the epoch."""

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        self.left = [epoch * 1000 + batch for batch in range(first_batch, BATCHES)]

    def __iter__(self) -> Iterator[torch.Tensor]:
        return (torch.tensor([number]) for number in self.left)

    def close(self) -> None:
        pass


class Keeping(Task):
    """Keeps all that it has seen, and a ballast that grows by each step."""

    step_s, long_step = 0.02, None

    def __init__(self) -> None:
        self.seen: list[int] = []

    def transfer(self, batch: torch.Tensor) -> torch.Tensor:
        return batch

    def train_step(self, batch: torch.Tensor, mark: Any) -> None:
        time.sleep(600 if len(self.seen) == self.long_step else self.step_s)
        self.seen.append(int(batch))

    def state_dict(self) -> dict[str, Any]:
        ballast = torch.zeros(len(self.seen) * BYTES_PER_STEP, dtype=torch.uint8)
        return {"seen": self.seen, "ballast": ballast}

    def load_state_dict(self, state: Any) -> None:
        self.seen = list(state["seen"])


class NeverEnding(Keeping):
    long_step = 10


class Growing(Workload):
    task: type[Keeping] = Keeping

    def sizes(self, batch_size: int) -> RunSizes:
        return RunSizes(epochs=EPOCHS, train_rows=BATCHES, train_batches=BATCHES)

    def train_loader(self, cell: Cell) -> Numbers:
        return Numbers()

    def make_task(self, cell: Cell) -> Task:
        return self.task()


class Sticking(Growing):
    task = NeverEnding
