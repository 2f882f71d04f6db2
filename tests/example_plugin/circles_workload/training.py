"""The workload itself: its batches, its model, one training step."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from circles_workload.plugin import Settings
from ctrkit.workloads import Cell, IterableLoader, RunSizes, Task, Workload


class Circles(Workload):
    """Points of a square, labelled by whether they lie in a circle."""

    name = "circles"

    def __init__(self, settings: Settings) -> None:
        self.own = settings

    def default_batch_size(self) -> int:
        return self.own.batch_size

    def sizes(self, batch_size: int) -> RunSizes:
        return RunSizes(
            epochs=self.own.epochs,
            patience=self.own.patience,
            train_rows=self.own.rows,
            train_batches=-(-self.own.rows // batch_size),
            validation_rows=500,
            validation_batches=-(-500 // batch_size),
        )

    def train_loader(self, cell: Cell) -> IterableLoader:
        return self._loader(cell, self.own.rows, seed=1, shuffle=True)

    def validation_loader(self, cell: Cell) -> IterableLoader:
        return self._loader(cell, 500, seed=2, shuffle=False)

    def _loader(self, cell: Cell, rows: int, *, seed: int, shuffle: bool) -> IterableLoader:
        points = torch.rand(rows, 2, generator=torch.Generator().manual_seed(seed)) * 2 - 1
        labels = (points.norm(dim=1) < 0.8).float()
        loader = DataLoader(
            TensorDataset(points, labels),
            batch_size=cell.batch_size,
            shuffle=shuffle,
            num_workers=cell.workers,
            multiprocessing_context=cell.start_method,
            prefetch_factor=cell.prefetch,
        )
        return IterableLoader(loader)

    def make_task(self, cell: Cell) -> CirclesTask:
        return CirclesTask(self.own.lr, torch.device(cell.device))


class CirclesTask(Task):
    """A small network and Adam; its metrics are the loss, the accuracy and a weight's size."""

    def __init__(self, lr: float, device: torch.device) -> None:
        torch.manual_seed(0)
        self.device = device
        self.model = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 1)).to(device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=lr)
        self.loss, self.steps, self.right, self.seen = 0.0, 0, 0, 0

    def begin_epoch(self, epoch: int) -> None:
        self.loss, self.steps = 0.0, 0

    def begin_validation(self) -> None:
        self.right, self.seen = 0, 0

    def transfer(self, batch):
        return [part.to(self.device) for part in batch]

    def train_step(self, batch, mark) -> None:
        points, labels = batch
        loss = nn.functional.binary_cross_entropy_with_logits(self.model(points)[:, 0], labels)
        mark("forward")
        self.optimizer.zero_grad()
        loss.backward()
        mark("backward")
        self.optimizer.step()
        mark("optimizer")
        self.loss, self.steps = self.loss + loss.item(), self.steps + 1

    def validation_step(self, batch) -> None:
        points, labels = batch
        with torch.no_grad():
            self.right += int(((self.model(points)[:, 0] > 0) == (labels > 0)).sum())
        self.seen += len(labels)

    def metrics(self) -> dict[str, float]:
        return {
            "train_loss": self.loss / max(1, self.steps),
            "val_accuracy": self.right / max(1, self.seen),
            "weight_norm": float(self.model[0].weight.norm()),
        }

    def state_dict(self):
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
