"""A limit of the address space (ulimit -v): an allocation fails with MemoryError."""

from __future__ import annotations

import resource

import psutil
import torch
from torch.utils.data import DataLoader, Dataset

EXPECT = {
    "title": "MemoryError at a limit (RLIMIT_AS)",
    "cells": {
        "0": "out-of-memory",
        "fork": "out-of-memory",
        "spawn": "out-of-memory",
        "forkserver": "out-of-memory",
    },
    "guilty": "worker",
    "needs": ["linux"],
}

ROOM = 1 << 30


class Rows(Dataset[torch.Tensor]):
    seen = 0

    def __len__(self) -> int:
        return 400

    def __getitem__(self, index: int) -> torch.Tensor:
        self.seen += 1
        if self.seen > 100:
            limit = psutil.Process().memory_info().vms + ROOM
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            return torch.tensor(float(len(bytearray(2 * ROOM))))  # guilty
        return torch.tensor(float(index))


def make_loader(workers: int, start_method: str | None, batch_size: int) -> DataLoader:
    return DataLoader(Rows(), batch_size, num_workers=workers, multiprocessing_context=start_method)
