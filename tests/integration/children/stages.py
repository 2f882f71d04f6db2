"""A workload that reports its stage and stays in it, so that a stop can hit it there.

`STAGES_SLOW` names the stage that takes long; the file `STAGES_SEEN` gets a line for each stage.
"""

from __future__ import annotations

import os
import time

import torch
from torch.utils.data import DataLoader, Dataset

from ctrkit.child.workloads.iterable_loader import IterableLoader
from ctrkit.child.workloads.protocol import Task, Workload
from ctrkit.core.config import RunSizes

ROWS, BATCH = 80, 4
SLOW_S = 6.0


def at(stage: str, seconds: float = SLOW_S, turn: int = 1) -> None:
    """Say so, and stay where this is the slow stage of this run, at this turn."""
    with open(os.environ["STAGES_SEEN"], "a+") as file:
        file.seek(0)
        is_turn = file.read().split("\n").count(stage) == turn - 1
        file.write(f"{stage}\n")
    if os.environ.get("STAGES_SLOW") == stage and is_turn:
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            time.sleep(0.05)


at("import")


class Rows(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, index: int) -> torch.Tensor:
        time.sleep(0.01)
        if index == 0 and os.environ.get("STAGES_SLOW") == "first batch":
            at("first batch", 600.0)
        return torch.full((3,), float(index))


class Net(Task):
    def __init__(self) -> None:
        torch.manual_seed(1)
        at("model")
        self.model = torch.nn.Linear(3, 1)
        self.steps = 0

    def transfer(self, batch: torch.Tensor) -> torch.Tensor:
        return batch

    def train_step(self, batch: torch.Tensor, mark: object) -> None:
        self.steps += 1
        if self.steps == 7:
            at("step")
        self.model(batch / ROWS).square().mean().backward()
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter -= 0.1 * parameter.grad
                parameter.grad = None

    def validation_step(self, batch: torch.Tensor) -> None:
        at("validation")

    def metrics(self) -> dict[str, float]:
        at("metrics")
        return {"train_loss": float(self.model.bias)}

    def state_dict(self) -> dict[str, object]:
        at("checkpoint", turn=2)  # before, it was only looked at
        return {"model": self.model.state_dict(), "steps": self.steps}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.model.load_state_dict(state["model"])
        self.steps = state["steps"]


class Stages(Workload):
    axes = ("workers", "start_method")

    def default_batch_size(self) -> int:
        return BATCH

    def sizes(self, batch_size: int) -> RunSizes:
        return RunSizes(epochs=2, train_rows=ROWS, train_batches=ROWS // BATCH)

    def train_loader(self, cell) -> IterableLoader:
        at("data")
        return IterableLoader(
            DataLoader(
                Rows(), BATCH, num_workers=cell.workers, multiprocessing_context=cell.start_method
            )
        )

    def validation_loader(self, cell) -> IterableLoader:
        return IterableLoader([torch.zeros(BATCH, 3)] * 2)

    def make_task(self, cell) -> Net:
        return Net()
