"""The main process is killed while its workers are stuck: they would never notice."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, Dataset

EXPECT = {
    "title": "main process killed while workers are stuck",
    "cells": {"fork": "crashed", "spawn": "crashed", "forkserver": "crashed"},
    "guilty": "main",
}


class Rows(Dataset[torch.Tensor]):
    seen = 0

    def __init__(self, batch_size: int) -> None:
        self.enough = 2 * batch_size

    def __len__(self) -> int:
        return 400

    def __getitem__(self, index: int) -> torch.Tensor:
        self.seen += 1
        if self.seen > self.enough:
            threading.Event().wait()
        return torch.tensor(float(index))


class KilledAfterTwo:
    def __init__(self, loader: DataLoader) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[torch.Tensor]:
        for taken, batch in enumerate(self.loader, start=1):
            yield batch
            if taken == 2:
                time.sleep(0.5)  # until the workers are stuck
                os.kill(os.getpid(), signal.SIGKILL)


def make_loader(workers: int, start_method: str | None, batch_size: int) -> KilledAfterTwo:
    return KilledAfterTwo(
        DataLoader(
            Rows(batch_size),
            batch_size,
            num_workers=workers,
            multiprocessing_context=start_method,
        )
    )
