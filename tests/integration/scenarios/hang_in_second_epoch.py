"""Persistent workers whose data set runs dry when the first epoch is over."""

from __future__ import annotations

import queue

import torch
from torch.utils.data import DataLoader, Dataset

EXPECT = {
    "title": "hang in the second epoch, persistent workers",
    "cells": {"0": "deadlock", "fork": "deadlock", "spawn": "deadlock", "forkserver": "deadlock"},
    "guilty": "worker",
}

ROWS = 160


class Rows(Dataset[torch.Tensor]):
    """Has as many free buffers as one epoch needs of it, and gives none back."""

    def __init__(self, share: int) -> None:
        self.share = share
        self.buffers: queue.SimpleQueue[int] | None = None

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, index: int) -> torch.Tensor:
        if self.buffers is None:
            self.buffers = queue.SimpleQueue()
            for buffer in range(self.share):
                self.buffers.put(buffer)
        self.buffers.get()  # guilty
        return torch.tensor(float(index))


def make_loader(workers: int, start_method: str | None, batch_size: int) -> DataLoader:
    return DataLoader(
        Rows(ROWS // max(1, workers)),
        batch_size,
        num_workers=workers,
        multiprocessing_context=start_method,
        persistent_workers=workers > 0,
    )
