"""A healthy iterable data set of unknown length."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

EXPECT = {
    "title": "healthy iterable",
    "cells": {"0": "ok", "fork": "ok", "spawn": "ok", "forkserver": "ok"},
    "guilty": None,
    "control": True,
}


class Stream(IterableDataset[torch.Tensor]):
    def __iter__(self) -> Iterator[torch.Tensor]:
        info = get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        for row in range(first, 400, step):
            yield torch.tensor(float(row))


def make_loader(workers: int, start_method: str | None, batch_size: int) -> DataLoader:
    return DataLoader(
        Stream(), batch_size, num_workers=workers, multiprocessing_context=start_method
    )
