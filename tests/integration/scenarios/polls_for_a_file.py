"""A worker that looks every 0.2 s for a file that never comes: it waits on a timer."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset

EXPECT = {
    "title": "polls for a file that never comes",
    "cells": {"0": "deadlock", "fork": "deadlock", "spawn": "deadlock", "forkserver": "deadlock"},
    "guilty": "worker",
    "budgets": 3,
}

READY = Path("/nonexistent/shard-0001.ready")


class Rows(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 400

    def __getitem__(self, index: int) -> torch.Tensor:
        while index == 200 and not READY.exists():
            time.sleep(0.2)  # guilty
        return torch.tensor(float(index))


def make_loader(workers: int, start_method: str | None, batch_size: int) -> DataLoader:
    return DataLoader(Rows(), batch_size, num_workers=workers, multiprocessing_context=start_method)
