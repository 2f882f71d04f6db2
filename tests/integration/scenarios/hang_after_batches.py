"""A lock taken twice by the same thread, after some batches went well."""

from __future__ import annotations

import threading

import torch
from torch.utils.data import DataLoader, Dataset

EXPECT = {
    "title": "hang after some batches",
    "cells": {"0": "deadlock", "fork": "deadlock", "spawn": "deadlock", "forkserver": "deadlock"},
    "guilty": "worker",
}

LOCK = threading.Lock()


class Rows(Dataset[torch.Tensor]):
    seen = 0

    def __len__(self) -> int:
        return 400

    def __getitem__(self, index: int) -> torch.Tensor:
        self.seen += 1
        if self.seen > 100:
            LOCK.acquire()
            LOCK.acquire()  # guilty
        return torch.tensor(float(index))


def make_loader(workers: int, start_method: str | None, batch_size: int) -> DataLoader:
    return DataLoader(Rows(), batch_size, num_workers=workers, multiprocessing_context=start_method)
