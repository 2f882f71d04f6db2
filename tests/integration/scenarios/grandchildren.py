"""Processes started by the data set that leave the session and outlive their parents."""

from __future__ import annotations

import subprocess

import torch
from torch.utils.data import DataLoader, Dataset

EXPECT = {
    "title": "grandchildren in sessions of their own",
    "cells": {"0": "ok", "fork": "ok", "spawn": "ok", "forkserver": "ok"},
    "guilty": None,
}


class Rows(Dataset[torch.Tensor]):
    started = False

    def __len__(self) -> int:
        return 400

    def __getitem__(self, index: int) -> torch.Tensor:
        if not self.started:
            self.started = True
            subprocess.Popen(["sleep", "600"], start_new_session=True)
            # its parent ends at once: it belongs to nobody any more
            subprocess.run(["sh", "-c", "sleep 600 &"], start_new_session=True, check=True)
        return torch.tensor(float(index))


def make_loader(workers: int, start_method: str | None, batch_size: int) -> DataLoader:
    return DataLoader(Rows(), batch_size, num_workers=workers, multiprocessing_context=start_method)
