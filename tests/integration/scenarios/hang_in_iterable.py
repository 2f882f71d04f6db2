"""An iterable data set that reads from a pipe that nothing writes to."""

from __future__ import annotations

import os
from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, IterableDataset

EXPECT = {
    "title": "hang in an iterable data set (read from a pipe)",
    "cells": {"0": "deadlock", "fork": "deadlock", "spawn": "deadlock", "forkserver": "deadlock"},
    "guilty": "worker",
}


class Stream(IterableDataset[torch.Tensor]):
    def __iter__(self) -> Iterator[torch.Tensor]:
        for row in range(100):
            yield torch.tensor(float(row))
        reader, _writer = os.pipe()
        yield torch.tensor(float(len(os.read(reader, 1))))  # guilty


def make_loader(workers: int, start_method: str | None, batch_size: int) -> DataLoader:
    return DataLoader(
        Stream(), batch_size, num_workers=workers, multiprocessing_context=start_method
    )
