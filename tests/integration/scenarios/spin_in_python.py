"""A loop whose end never comes: it burns a core and makes no progress."""

from __future__ import annotations

import torch
from torch.utils.data import DataLoader, Dataset

EXPECT = {
    "title": "endless loop in Python",
    "cells": {"0": "stalled", "fork": "stalled", "spawn": "stalled", "forkserver": "stalled"},
    "guilty": "worker",
    "budgets": 2,
    "burns": True,
}


def longest_chain(start: int) -> int:
    """Steps until `start` has shrunk to 1; a mistake makes 0 go round for ever."""
    steps = 0
    while start != 1:  # guilty
        start = start // 2  # guilty
        steps += 1  # guilty
    return steps


class Rows(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 400

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor(float(longest_chain((index + 250) % 400)))


def make_loader(workers: int, start_method: str | None, batch_size: int) -> DataLoader:
    return DataLoader(Rows(), batch_size, num_workers=workers, multiprocessing_context=start_method)
