"""A process that is stopped (SIGSTOP), as by a debugger or a batch system."""

from __future__ import annotations

import os
import signal

import torch
from torch.utils.data import DataLoader, Dataset

EXPECT = {
    "title": "stopped by SIGSTOP",
    "cells": {"0": "stalled", "fork": "stalled", "spawn": "stalled", "forkserver": "stalled"},
    "guilty": "worker",
}


class Rows(Dataset[torch.Tensor]):
    seen = 0

    def __len__(self) -> int:
        return 400

    def __getitem__(self, index: int) -> torch.Tensor:
        self.seen += 1
        if self.seen > 100:
            os.kill(os.getpid(), signal.SIGSTOP)  # guilty
        return torch.tensor(float(index))  # where it goes on to be asked  # guilty


def make_loader(workers: int, start_method: str | None, batch_size: int) -> DataLoader:
    return DataLoader(Rows(), batch_size, num_workers=workers, multiprocessing_context=start_method)
