"""`worker_init_fn` waits for something that never comes."""

from __future__ import annotations

import threading

import torch
from torch.utils.data import DataLoader, Dataset

EXPECT = {
    "title": "hang in worker_init_fn",
    "cells": {"fork": "deadlock", "spawn": "deadlock", "forkserver": "deadlock"},
    "guilty": "worker",
}


class Rows(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 400

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor(float(index))


def wait_for_the_others(worker: int) -> None:
    threading.Barrier(2).wait()  # guilty


def make_loader(workers: int, start_method: str | None, batch_size: int) -> DataLoader:
    return DataLoader(
        Rows(),
        batch_size,
        num_workers=workers,
        multiprocessing_context=start_method,
        worker_init_fn=wait_for_the_others,
    )
