"""A batch that cannot be pickled: the worker's feeder thread drops it and nobody is told."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.utils.data import DataLoader, Dataset

EXPECT = {
    "title": "batch that cannot be pickled, dropped by the feeder thread",
    "cells": {"0": "ok", "fork": "deadlock", "spawn": "deadlock", "forkserver": "deadlock"},
    "guilty": "worker",
}


class Rows(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 400

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor(float(index))


def lazily(rows: list[torch.Tensor]) -> dict[str, Callable[[], torch.Tensor]]:
    return {"rows": lambda: torch.stack(rows)}


def make_loader(workers: int, start_method: str | None, batch_size: int) -> DataLoader:
    return DataLoader(
        Rows(),
        batch_size,
        num_workers=workers,
        multiprocessing_context=start_method,
        collate_fn=lazily,
    )
