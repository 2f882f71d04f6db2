"""An ordinary exception in `__getitem__`."""

from __future__ import annotations

import torch
from torch.utils.data import DataLoader, Dataset

EXPECT = {
    "title": "exception in __getitem__",
    "cells": {
        "0": "crashed",
        "fork": "crashed",
        "spawn": "crashed",
        "forkserver": "crashed",
    },
    "guilty": "worker",
}


class Rows(Dataset[torch.Tensor]):
    seen = 0

    def __len__(self) -> int:
        return 400

    def __getitem__(self, index: int) -> torch.Tensor:
        self.seen += 1
        if self.seen > 100:
            raise ValueError("row 100 has no label")  # guilty
        return torch.tensor(float(index))


def make_loader(workers: int, start_method: str | None, batch_size: int) -> DataLoader:
    return DataLoader(Rows(), batch_size, num_workers=workers, multiprocessing_context=start_method)
