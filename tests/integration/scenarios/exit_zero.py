"""`sys.exit(0)` while a row is fetched: a silent end that claims success."""

from __future__ import annotations

import sys

import torch
from torch.utils.data import DataLoader, Dataset

EXPECT = {
    "title": "sys.exit(0) while fetching",
    "cells": {
        "0": "crashed",
        "fork": "worker-died",
        "spawn": "worker-died",
        "forkserver": "worker-died",
    },
    "guilty": "worker",
}


class Rows(Dataset[torch.Tensor]):
    seen = 0

    def __len__(self) -> int:
        return 400

    def __getitem__(self, index: int) -> torch.Tensor:
        self.seen += 1
        if self.seen > 100:
            sys.exit(0)
        return torch.tensor(float(index))


def make_loader(workers: int, start_method: str | None, batch_size: int) -> DataLoader:
    return DataLoader(Rows(), batch_size, num_workers=workers, multiprocessing_context=start_method)
