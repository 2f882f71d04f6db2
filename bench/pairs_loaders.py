"""Example loaders for bench/pairs.py; the variable PAIRS_BATCHES is the length of an epoch."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

WIDTH = 256
#: Rows per batch of the loaders whose batches differ in cost.
UNEVEN_BATCH = 32


class Stored(Dataset[torch.Tensor]):
    """Rows from slow storage: each takes some time, now and then ten times as much."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, index: int) -> torch.Tensor:
        late = np.random.default_rng(index).random() < 0.01
        time.sleep(0.002 if late else 0.0002)
        return torch.full((WIDTH,), float(index))


class Decoded(Stored):
    """Rows that take CPU time to make."""

    def __getitem__(self, index: int) -> torch.Tensor:
        values = np.random.default_rng(index).standard_normal((16, WIDTH))
        return torch.from_numpy(np.sort(values, axis=1).mean(axis=0)).float()


class Uneven(Stored):
    """Batches that cost from almost nothing to several times the mean, by their content."""

    def cost_s(self, batch: int) -> float:
        return float(np.random.default_rng(batch).gamma(1.6, 0.025))

    def __getitem__(self, index: int) -> torch.Tensor:
        time.sleep(self.cost_s(index // UNEVEN_BATCH) / UNEVEN_BATCH)
        return torch.full((WIDTH,), float(index))


class ByLength(Uneven):
    """The same rows sorted by their length: a batch takes ever longer."""

    def cost_s(self, batch: int) -> float:
        return 0.01 + 0.06 * batch * UNEVEN_BATCH / self.rows


class Streamed(IterableDataset[torch.Tensor]):
    """Uneven rows from a stream; a trial can only see its first batches."""

    def __init__(self, rows: int) -> None:
        self.made = Uneven(rows)

    def __len__(self) -> int:
        return len(self.made)

    def __iter__(self) -> Iterator[torch.Tensor]:
        return (self.made[index] for index in range(len(self.made)))


def _loader(
    kind: Callable[[int], Any], workers: int, start_method: str | None, batch_size: int
) -> Any:
    rows = int(os.environ["PAIRS_BATCHES"]) * batch_size
    context = {"multiprocessing_context": start_method} if workers else {}
    return DataLoader(kind(rows), batch_size=batch_size, num_workers=workers, **context)


def stored(*, workers: int, start_method: str | None, batch_size: int) -> Any:
    return _loader(Stored, workers, start_method, batch_size)


def decoded(*, workers: int, start_method: str | None, batch_size: int) -> Any:
    return _loader(Decoded, workers, start_method, batch_size)


def uneven(*, workers: int, start_method: str | None, batch_size: int) -> Any:
    return _loader(Uneven, workers, start_method, batch_size)


def by_length(*, workers: int, start_method: str | None, batch_size: int) -> Any:
    return _loader(ByLength, workers, start_method, batch_size)


def streamed(*, workers: int, start_method: str | None, batch_size: int) -> Any:
    return _loader(Streamed, workers, start_method, batch_size)
