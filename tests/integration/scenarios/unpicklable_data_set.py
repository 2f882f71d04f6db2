"""A lambda in the data set: a worker that is not forked cannot receive it."""

from __future__ import annotations

import torch
from torch.utils.data import DataLoader, Dataset

EXPECT = {
    "title": "lambda in the data set",
    "cells": {"0": "ok", "fork": "ok", "spawn": "crashed", "forkserver": "crashed"},
    "guilty": "main",
}


class Rows(Dataset[torch.Tensor]):
    def __init__(self) -> None:
        self.transform = lambda value: value * 2

    def __len__(self) -> int:
        return 400

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor(self.transform(float(index)))


def make_loader(workers: int, start_method: str | None, batch_size: int) -> DataLoader:
    return DataLoader(Rows(), batch_size, num_workers=workers, multiprocessing_context=start_method)
