"""A thread that is no daemon and never ends: the process is done, but does not exit."""

from __future__ import annotations

import threading

import torch
from torch.utils.data import DataLoader, Dataset

EXPECT = {
    "title": "non-daemon thread at shutdown",
    "cells": {
        "0": "shutdown-hang",
        "fork": "shutdown-hang",
        "spawn": "shutdown-hang",
        "forkserver": "shutdown-hang",
    },
    "guilty": "main",
}

CLOSED = threading.Event()


class Rows(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 400

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor(float(index))


def report_until_closed() -> None:
    CLOSED.wait()  # guilty


def make_loader(workers: int, start_method: str | None, batch_size: int) -> DataLoader:
    threading.Thread(target=report_until_closed).start()
    return DataLoader(Rows(), batch_size, num_workers=workers, multiprocessing_context=start_method)
