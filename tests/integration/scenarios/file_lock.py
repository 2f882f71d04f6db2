"""A file lock that the main process holds while its workers wait for it."""

from __future__ import annotations

import fcntl
import tempfile

import torch
from torch.utils.data import DataLoader, Dataset

EXPECT = {
    "title": "file lock held by the main process",
    "cells": {"0": "deadlock", "fork": "deadlock", "spawn": "deadlock", "forkserver": "deadlock"},
    "guilty": "worker",
}

HELD = []


class Rows(Dataset[torch.Tensor]):
    def __init__(self, path: str) -> None:
        self.path = path

    def __len__(self) -> int:
        return 400

    def __getitem__(self, index: int) -> torch.Tensor:
        if index == 200:
            with open(self.path, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX)  # guilty
        return torch.tensor(float(index))


def make_loader(workers: int, start_method: str | None, batch_size: int) -> DataLoader:
    held = tempfile.NamedTemporaryFile()  # noqa: SIM115 - it is held for ever
    fcntl.flock(held, fcntl.LOCK_EX)
    HELD.append(held)
    return DataLoader(
        Rows(held.name), batch_size, num_workers=workers, multiprocessing_context=start_method
    )
