"""The sampler waits for ever; it runs in the main process even with workers."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

EXPECT = {
    "title": "hang in the sampler",
    "cells": {"0": "deadlock", "fork": "deadlock", "spawn": "deadlock", "forkserver": "deadlock"},
    "guilty": "main",
}


class Rows(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 400

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor(float(index))


class HalfASampler(Sampler[int]):
    def __len__(self) -> int:
        return 400

    def __iter__(self) -> Iterator[int]:
        yield from range(200)
        threading.Semaphore(0).acquire()  # guilty
        yield from range(200, 400)


def make_loader(workers: int, start_method: str | None, batch_size: int) -> DataLoader:
    return DataLoader(
        Rows(),
        batch_size,
        sampler=HalfASampler(),
        num_workers=workers,
        multiprocessing_context=start_method,
    )
