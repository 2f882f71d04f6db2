"""Loaders of one's own for bench/pairs.py; the variable PAIRS_BATCHES is an epoch's length."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

WIDTH = 256


class Stored(Dataset[torch.Tensor]):
    """Rows that come from far away: each takes some time, now and then ten times as much."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, index: int) -> torch.Tensor:
        late = np.random.default_rng(index).random() < 0.01
        time.sleep(0.002 if late else 0.0002)
        return torch.full((WIDTH,), float(index))


class Decoded(Stored):
    """Rows that have to be made on the processor."""

    def __getitem__(self, index: int) -> torch.Tensor:
        values = np.random.default_rng(index).standard_normal((16, WIDTH))
        return torch.from_numpy(np.sort(values, axis=1).mean(axis=0)).float()


def _loader(kind: type[Stored], workers: int, start_method: str | None, batch_size: int) -> Any:
    rows = int(os.environ["PAIRS_BATCHES"]) * batch_size
    context = {"multiprocessing_context": start_method} if workers else {}
    return DataLoader(kind(rows), batch_size=batch_size, num_workers=workers, **context)


def stored(*, workers: int, start_method: str | None, batch_size: int) -> Any:
    return _loader(Stored, workers, start_method, batch_size)


def decoded(*, workers: int, start_method: str | None, batch_size: int) -> Any:
    return _loader(Decoded, workers, start_method, batch_size)
