"""/dev/shm of 4 MB, as small as a container's may be: it cannot hold the batches of the workers."""

from __future__ import annotations

import ctypes
import os

import torch
from torch.utils.data import DataLoader, Dataset

EXPECT = {
    "title": "shared memory full (4 MB /dev/shm)",
    "cells": {
        "0": "ok",
        "fork": ["worker-died", "deadlock", "crashed"],
        "spawn": ["worker-died", "deadlock", "crashed"],
        "forkserver": ["worker-died", "deadlock", "crashed"],
    },
    "guilty": "worker",
    "needs": ["linux", "root"],
}

NEW_MOUNTS, PRIVATE, RECURSIVE = 0x0002_0000, 1 << 18, 1 << 14


def shrink_shared_memory() -> None:
    """Mount a small file system over /dev/shm, which only this process and its children see."""
    libc = ctypes.CDLL(None, use_errno=True)

    def check(result: int) -> None:
        if result:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "/dev/shm")

    check(libc.unshare(NEW_MOUNTS))
    check(libc.mount(b"none", b"/", None, ctypes.c_ulong(PRIVATE | RECURSIVE), None))
    check(libc.mount(b"none", b"/dev/shm", b"tmpfs", ctypes.c_ulong(0), b"size=4m"))


class Rows(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 400

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.zeros(250_000)


def make_loader(workers: int, start_method: str | None, batch_size: int) -> DataLoader:
    shrink_shared_memory()
    return DataLoader(Rows(), batch_size, num_workers=workers, multiprocessing_context=start_method)
