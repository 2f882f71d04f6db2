"""A row that opens more files at a time than a process may have."""

from __future__ import annotations

import os
import resource

import torch
from torch.utils.data import DataLoader, Dataset

EXPECT = {
    "title": "too many open files, in the data set",
    "cells": {"0": "crashed", "fork": "crashed", "spawn": "crashed", "forkserver": "crashed"},
    "guilty": "worker",
}

LIMIT = 256  # what a shell on macOS allows by default


class Rows(Dataset[torch.Tensor]):
    seen = 0

    def __len__(self) -> int:
        return 400

    def __getitem__(self, index: int) -> torch.Tensor:
        self.seen += 1
        if self.seen > 100:
            resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, LIMIT))
            shards = [open(os.devnull, "rb") for _ in range(2 * LIMIT)]  # noqa: SIM115  # guilty
            return torch.tensor(float(len(shards)))
        return torch.tensor(float(index))


def make_loader(workers: int, start_method: str | None, batch_size: int) -> DataLoader:
    return DataLoader(Rows(), batch_size, num_workers=workers, multiprocessing_context=start_method)
