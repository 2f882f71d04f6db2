"""OpenMP used before the fork: its threads do not exist in the worker, which waits for them."""

from __future__ import annotations

import torch
from torch.utils.data import DataLoader, Dataset

EXPECT = {
    "title": "OpenMP threads used before the fork",
    "cells": {"0": "ok", "fork": "deadlock", "spawn": "ok", "forkserver": "ok"},
    "guilty": "worker",
    "needs": ["linux"],
}


def use_threads() -> torch.Tensor:
    torch.set_num_threads(2)
    return torch.ones(2_000_000).exp()  # guilty


class Rows(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> torch.Tensor:
        return use_threads()[:4]


def make_loader(workers: int, start_method: str | None, batch_size: int) -> DataLoader:
    use_threads()
    return DataLoader(Rows(), batch_size, num_workers=workers, multiprocessing_context=start_method)
