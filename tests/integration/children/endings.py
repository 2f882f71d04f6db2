"""Loaders and a loop whose worker hangs or dies at a random step; without workers they are fine."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from ctrkit.child.workloads.iterable_loader import IterableLoader
from ctrkit.child.workloads.protocol import Task, Workload
from ctrkit.core.config import Cell, RunSizes

ROWS, BATCH = 1000, 16
HELD = threading.Lock()


class Rows(Dataset[torch.Tensor]):
    """The row numbers; `end` is called in a worker that comes to row `at`."""

    def __init__(self, end: Callable[[], None]) -> None:
        self.end, self.at = end, -1

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, index: int) -> torch.Tensor:
        if index == self.at and get_worker_info() is not None:
            self.end()
        return torch.tensor(index)


class EndsInASecondEpoch:
    """A shuffling DataLoader with a row in its second epoch that no worker survives."""

    def __init__(self, end: Callable[[], None], workers: int, start_method: str | None) -> None:
        self.rows, self.epochs = Rows(end), 0
        self.loader = DataLoader(
            self.rows, BATCH, shuffle=True, num_workers=workers,
            multiprocessing_context=start_method if workers else None,
        )  # fmt: skip

    def __iter__(self) -> Iterator[Any]:
        self.epochs += 1
        self.rows.at = random.randrange(ROWS) if self.epochs == 2 else -1
        return iter(self.loader)

    def __len__(self) -> int:
        return len(self.loader)


def deadlocks(*, workers: int, start_method: str | None) -> EndsInASecondEpoch:
    if workers:
        HELD.acquire()  # the thread that holds it is not there after a fork
    return EndsInASecondEpoch(HELD.acquire, workers, start_method)


def loses_a_worker(*, workers: int, start_method: str | None) -> EndsInASecondEpoch:
    return EndsInASecondEpoch(lambda: os.kill(os.getpid(), signal.SIGKILL), workers, start_method)


def stops_a_worker(*, workers: int, start_method: str | None) -> EndsInASecondEpoch:
    def stop() -> None:
        os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(1)  # the other threads may run on for a moment, and send what this one returns

    return EndsInASecondEpoch(stop, workers, start_method)


class KilledOnce:
    """Kills the main process at a random step of its second epoch, and leaves a mark behind."""

    mark = Path("killed-once")

    def __init__(self) -> None:
        self.epochs = 0

    def __iter__(self) -> Iterator[Any]:
        self.epochs += 1
        fatal = random.randrange(1, 10) if self.epochs == 2 and not self.mark.exists() else None
        for step in range(10):
            if step == fatal:
                self.mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            yield torch.arange(100)


def loses_the_main_process(*, batch_size: int) -> KilledOnce:
    return KilledOnce()


class Seen(Task):
    """Keeps the rows of every epoch that it has trained: they are all of its state."""

    def __init__(self) -> None:
        self.rows: dict[str, list[int]] = {}

    def begin_epoch(self, epoch: int) -> None:
        self.epoch = str(epoch)
        self.rows[self.epoch] = []

    def transfer(self, batch: torch.Tensor) -> torch.Tensor:
        return batch

    def train_step(self, batch: torch.Tensor, mark: Any) -> None:
        self.rows[self.epoch] += batch.tolist()
        threading.Event().wait(0.01)  # an epoch outlasts some checkpoints

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state: Any) -> None:
        self.rows = dict(state["rows"])


class SeesRows(Workload):
    """A loop with a state, on a loader that loses a worker."""

    axes = ("workers", "start_method")

    def sizes(self, batch_size: int) -> RunSizes:
        return RunSizes(epochs=2, train_rows=ROWS, train_batches=-(-ROWS // BATCH))

    def train_loader(self, cell: Cell) -> IterableLoader:
        return IterableLoader(loses_a_worker(workers=cell.workers, start_method=cell.start_method))

    def make_task(self, cell: Cell) -> Task:
        return Seen()
