"""The first batch of every epoch takes longer than the stall timeout."""

from __future__ import annotations

import time

import torch
from torch.utils.data import DataLoader, Dataset

EXPECT = {
    "title": "slow first batch",
    "cells": {"0": "ok", "fork": "ok", "spawn": "ok", "forkserver": "ok"},
    "guilty": None,
    "control": True,
}


class Rows(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 160

    def __getitem__(self, index: int) -> torch.Tensor:
        if index == 0:
            time.sleep(7)  # a cold cache
        return torch.tensor(float(index))


def make_loader(workers: int, start_method: str | None, batch_size: int) -> DataLoader:
    return DataLoader(Rows(), batch_size, num_workers=workers, multiprocessing_context=start_method)
