"""An exception in `worker_init_fn`."""

from __future__ import annotations

import torch
from torch.utils.data import DataLoader, Dataset

EXPECT = {
    "title": "exception in worker_init_fn",
    "cells": {"fork": "crashed", "spawn": "crashed", "forkserver": "crashed"},
    "guilty": "worker",
}


class Rows(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 400

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor(float(index))


def connect(worker: int) -> None:
    raise ConnectionError(f"worker {worker}: the feature store refused the connection")  # guilty


def make_loader(workers: int, start_method: str | None, batch_size: int) -> DataLoader:
    return DataLoader(
        Rows(),
        batch_size,
        num_workers=workers,
        multiprocessing_context=start_method,
        worker_init_fn=connect,
    )
