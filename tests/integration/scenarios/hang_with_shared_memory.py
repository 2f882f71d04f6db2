"""A hang with open shared memory that only a supervisor would remove."""

from __future__ import annotations

import os
import threading
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory

import torch
import torch.multiprocessing
from torch.utils.data import DataLoader, Dataset

EXPECT = {
    "title": "hang that would leak shared memory",
    "cells": {"0": "deadlock", "fork": "deadlock", "spawn": "deadlock", "forkserver": "deadlock"},
    "guilty": "worker",
}


class Rows(Dataset[torch.Tensor]):
    seen = 0

    def __len__(self) -> int:
        return 400

    def __getitem__(self, index: int) -> torch.Tensor:
        self.seen += 1
        if self.seen > 100:
            self.cache = SharedMemory(create=True, size=1 << 20)
            # many do this, so that the end of one process does not take the memory from the others
            resource_tracker.unregister(f"/{self.cache.name.lstrip('/')}", "shared_memory")
            threading.Event().wait()  # guilty
        return torch.tensor(float(index))


def share_by_name(worker: int) -> None:
    torch.multiprocessing.set_sharing_strategy("file_system")


def make_loader(workers: int, start_method: str | None, batch_size: int) -> DataLoader:
    share_by_name(os.getpid())
    return DataLoader(
        Rows(),
        batch_size,
        num_workers=workers,
        multiprocessing_context=start_method,
        worker_init_fn=share_by_name,
    )
