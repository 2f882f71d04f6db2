"""An exception in the main process's own part of the iteration, after some batches."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, Dataset

EXPECT = {
    "title": "exception in the iteration of the main process",
    "cells": {"0": "crashed", "fork": "crashed", "spawn": "crashed", "forkserver": "crashed"},
    "guilty": "main",
}


class Rows(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 400

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor(float(index))


class Checked:
    """A loader whose batches are looked at before they are handed on."""

    def __init__(self, loader: DataLoader) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[torch.Tensor]:
        for batch in self.loader:
            if batch.max() > 200:
                raise KeyError("category 201 is not in the vocabulary")  # guilty
            yield batch


def make_loader(workers: int, start_method: str | None, batch_size: int) -> Checked:
    return Checked(
        DataLoader(Rows(), batch_size, num_workers=workers, multiprocessing_context=start_method)
    )
