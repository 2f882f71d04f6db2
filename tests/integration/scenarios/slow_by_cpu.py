"""One batch burns a core for longer than the stall timeout."""

from __future__ import annotations

import time

import torch
from torch.utils.data import DataLoader, Dataset

EXPECT = {
    "title": "slow by CPU",
    "cells": {"0": "ok", "fork": "ok", "spawn": "ok", "forkserver": "ok"},
    "guilty": None,
    "control": True,
    "burns": True,
}


class Rows(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 80

    def __getitem__(self, index: int) -> torch.Tensor:
        until_s = time.monotonic() + (6.5 if index == 40 else 0.0)
        while time.monotonic() < until_s:
            pass
        return torch.tensor(float(index))


def make_loader(workers: int, start_method: str | None, batch_size: int) -> DataLoader:
    return DataLoader(Rows(), batch_size, num_workers=workers, multiprocessing_context=start_method)
