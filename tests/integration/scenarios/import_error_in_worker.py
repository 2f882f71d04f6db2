"""An import that fails only in a new worker; a small data set."""

from __future__ import annotations

import importlib
import multiprocessing

import torch
from torch.utils.data import DataLoader, Dataset

EXPECT = {
    "title": "import error in the worker",
    "cells": {"0": "ok", "fork": "ok", "spawn": "worker-died", "forkserver": "worker-died"},
    "guilty": "worker",
    "stall_timeout_s": 12,  # torch looks every 5 s whether a worker of the fork server lives
}

if multiprocessing.current_process().name != "MainProcess":  # its search path is another
    importlib.import_module("a_package_that_only_the_main_process_finds")  # guilty


class Rows(Dataset[torch.Tensor]):
    def __init__(self) -> None:
        self.table = bytes(1_000)

    def __len__(self) -> int:
        return 400

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor(float(self.table[index]))


def make_loader(workers: int, start_method: str | None, batch_size: int) -> DataLoader:
    return DataLoader(Rows(), batch_size, num_workers=workers, multiprocessing_context=start_method)
