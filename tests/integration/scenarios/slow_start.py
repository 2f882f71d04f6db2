"""Start-up takes longer than the stall timeout: in `worker_init_fn`, or without workers before."""

from __future__ import annotations

import time

import torch
from torch.utils.data import DataLoader, Dataset

EXPECT = {
    "title": "slow start-up",
    "cells": {"0": "ok", "fork": "ok", "spawn": "ok", "forkserver": "ok"},
    "guilty": None,
    "control": True,
}


class Rows(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 400

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor(float(index))


def download_vocabulary(worker: int) -> None:
    time.sleep(6.5)


def make_loader(workers: int, start_method: str | None, batch_size: int) -> DataLoader:
    if not workers:
        download_vocabulary(0)
    return DataLoader(
        Rows(),
        batch_size,
        num_workers=workers,
        multiprocessing_context=start_method,
        worker_init_fn=download_vocabulary,
    )
