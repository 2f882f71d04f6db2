"""The second worker is thirty times slower than the first."""

from __future__ import annotations

import time

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

EXPECT = {
    "title": "uneven workers",
    "cells": {"fork": "ok", "spawn": "ok", "forkserver": "ok"},
    "guilty": None,
    "control": True,
}


class Rows(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 200

    def __getitem__(self, index: int) -> torch.Tensor:
        info = get_worker_info()
        time.sleep(0.03 if info is not None and info.id == 1 else 0.001)
        return torch.tensor(float(index))


def make_loader(workers: int, start_method: str | None, batch_size: int) -> DataLoader:
    return DataLoader(Rows(), batch_size, num_workers=workers, multiprocessing_context=start_method)
