"""A C function that waits for ever and holds the interpreter lock meanwhile."""

from __future__ import annotations

import ctypes

import torch
from torch.utils.data import DataLoader, Dataset

EXPECT = {
    "title": "C call that holds the GIL",
    "cells": {"0": "deadlock", "fork": "deadlock", "spawn": "deadlock", "forkserver": "deadlock"},
    "guilty": "worker",
}


class Rows(Dataset[torch.Tensor]):
    seen = 0

    def __len__(self) -> int:
        return 400

    def __getitem__(self, index: int) -> torch.Tensor:
        self.seen += 1
        if self.seen > 100:
            ctypes.PyDLL(None).pause()  # guilty
        return torch.tensor(float(index))


def make_loader(workers: int, start_method: str | None, batch_size: int) -> DataLoader:
    return DataLoader(Rows(), batch_size, num_workers=workers, multiprocessing_context=start_method)
