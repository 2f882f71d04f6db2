"""`collate_fn` hands its rows to a pool of one thread, from inside that pool."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch
from torch.utils.data import DataLoader, Dataset

EXPECT = {
    "title": "hang in collate_fn (a pool that waits for itself)",
    "cells": {"0": "deadlock", "fork": "deadlock", "spawn": "deadlock", "forkserver": "deadlock"},
    "guilty": "worker",
}


class Rows(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 400

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor(float(index))


class Collate:
    pool: ThreadPoolExecutor | None = None

    def __call__(self, rows: list[torch.Tensor]) -> torch.Tensor:
        if self.pool is None:
            self.pool = ThreadPoolExecutor(1)
        if rows[0] < 80:
            return torch.stack(rows)
        return self.pool.submit(self.in_the_pool, rows).result()  # guilty

    def in_the_pool(self, rows: list[torch.Tensor]) -> torch.Tensor:
        assert self.pool is not None
        return self.pool.submit(torch.stack, rows).result()


def make_loader(workers: int, start_method: str | None, batch_size: int) -> DataLoader:
    return DataLoader(
        Rows(),
        batch_size,
        num_workers=workers,
        multiprocessing_context=start_method,
        collate_fn=Collate(),
    )
