"""A library that ends the process with an exit code, without an exception."""

from __future__ import annotations

import os

import torch
from torch.utils.data import DataLoader, Dataset

EXPECT = {
    "title": "os._exit(3)",
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
            os._exit(3)
        return torch.tensor(float(index))


def make_loader(workers: int, start_method: str | None, batch_size: int) -> DataLoader:
    return DataLoader(Rows(), batch_size, num_workers=workers, multiprocessing_context=start_method)
