"""A lock that another thread holds at the moment of the fork: the worker's copy stays locked."""

from __future__ import annotations

import threading

import torch
from torch.utils.data import DataLoader, Dataset

EXPECT = {
    "title": "lock held by another thread while forking",
    "cells": {"0": "ok", "fork": "deadlock", "spawn": "ok", "forkserver": "ok"},
    "guilty": "worker",
}

LOCK = threading.Lock()


class Rows(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 400

    def __getitem__(self, index: int) -> torch.Tensor:
        with LOCK:  # guilty
            return torch.tensor(float(index))


def hold(held: threading.Event) -> None:
    with LOCK:
        held.set()
        threading.Event().wait(2.0)


def make_loader(workers: int, start_method: str | None, batch_size: int) -> DataLoader:
    held = threading.Event()
    threading.Thread(target=hold, args=(held,), daemon=True).start()
    held.wait()
    return DataLoader(Rows(), batch_size, num_workers=workers, multiprocessing_context=start_method)
