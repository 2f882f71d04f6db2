"""Workers that will not end: a thread of theirs never does, and they ignore SIGTERM."""

from __future__ import annotations

import signal
import threading

import torch
from torch.utils.data import DataLoader, Dataset

EXPECT = {
    "title": "worker ignores SIGTERM at shutdown",
    "cells": {
        "fork": "shutdown-hang",
        "spawn": "shutdown-hang",
        "forkserver": "shutdown-hang",
    },
    "guilty": "worker",
    "stall_timeout_s": 25,  # torch itself waits 10 s for each worker at the end of an epoch
}


class Rows(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 400

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor(float(index))


def linger() -> None:
    threading.Event().wait()  # guilty


def refuse_to_end(worker: int) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=linger).start()


def make_loader(workers: int, start_method: str | None, batch_size: int) -> DataLoader:
    return DataLoader(
        Rows(),
        batch_size,
        num_workers=workers,
        multiprocessing_context=start_method,
        worker_init_fn=refuse_to_end,
    )
