"""A regular expression that needs exponential time on one row; it holds the GIL meanwhile."""

from __future__ import annotations

import re

import torch
from torch.utils.data import DataLoader, Dataset

EXPECT = {
    "title": "catastrophic regular expression",
    "cells": {"0": "stalled", "fork": "stalled", "spawn": "stalled", "forkserver": "stalled"},
    "guilty": "worker",
    "budgets": 2,
    "burns": True,
}

NAME = re.compile(r"([a-z]+)+$")


class Rows(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 400

    def __getitem__(self, index: int) -> torch.Tensor:
        text = "a" * 60 + "!" if index == 200 else "an ordinary row"
        return torch.tensor(float(NAME.match(text) is not None))  # guilty


def make_loader(workers: int, start_method: str | None, batch_size: int) -> DataLoader:
    return DataLoader(Rows(), batch_size, num_workers=workers, multiprocessing_context=start_method)
