"""A worker that the kernel kills for memory, in a control group with a limit as a container has."""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset

EXPECT = {
    "title": "killed by the kernel for memory",
    "cells": {"fork": "out-of-memory", "spawn": "out-of-memory", "forkserver": "out-of-memory"},
    "guilty": "worker",
    "needs": ["linux", "root", "cgroup"],
}

LIMIT_BYTES = 1_500_000_000
PIECE = 20_000_000


def enter_limited_group() -> None:
    """Move this process into a memory control group of its own; version 1 or 2."""
    root = Path("/sys/fs/cgroup")
    if (root / "memory" / "cgroup.procs").exists():
        group, limit = root / "memory", "memory.limit_in_bytes"
    else:
        group, limit = root, "memory.max"
        (group / "cgroup.subtree_control").write_text("+memory")
    group /= f"ctrkit-oom-{os.getpid()}"
    group.mkdir()
    (group / limit).write_text(str(LIMIT_BYTES))
    (group / "cgroup.procs").write_text(str(os.getpid()))


class Rows(Dataset[torch.Tensor]):
    def __init__(self) -> None:
        self.hoard: list[bytes] = []

    def __len__(self) -> int:
        return 400

    def __getitem__(self, index: int) -> torch.Tensor:
        time.sleep(0.06)  # a leak grows over seconds, and so can be watched
        self.hoard.append(b"x" * PIECE)
        return torch.tensor(float(index))


def make_loader(workers: int, start_method: str | None, batch_size: int) -> DataLoader:
    enter_limited_group()
    return DataLoader(Rows(), batch_size, num_workers=workers, multiprocessing_context=start_method)
