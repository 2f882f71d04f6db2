"""Batches of so many tensors that their shared-memory files exceed the limit of open files."""

from __future__ import annotations

import resource

import torch
from torch.utils.data import DataLoader, Dataset

EXPECT = {
    "title": "too many open files, for the tensors of a batch",
    "cells": {
        "0": "ok",
        "fork": ["deadlock", "crashed", "worker-died"],
        "spawn": ["deadlock", "crashed", "worker-died"],
        "forkserver": ["deadlock", "crashed", "worker-died"],
    },
    "guilty": "worker",
    "needs": ["linux"],  # elsewhere torch shares by name, not by open file
}


class Rows(Dataset[list[torch.Tensor]]):
    def __len__(self) -> int:
        return 80

    def __getitem__(self, index: int) -> list[torch.Tensor]:
        return [torch.zeros(2) for _ in range(400)]


def make_loader(workers: int, start_method: str | None, batch_size: int) -> DataLoader:
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
    return DataLoader(Rows(), batch_size, num_workers=workers, multiprocessing_context=start_method)
