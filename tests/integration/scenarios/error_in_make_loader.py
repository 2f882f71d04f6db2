"""An exception while the loader is being made."""

from __future__ import annotations

from torch.utils.data import DataLoader

EXPECT = {
    "title": "exception in make_loader",
    "cells": {
        "0": "setup-failed",
        "fork": "setup-failed",
        "spawn": "setup-failed",
        "forkserver": "setup-failed",
    },
    "guilty": "main",
}


def make_loader(workers: int, start_method: str | None, batch_size: int) -> DataLoader:
    raise FileNotFoundError("no such bucket: s3://clicks/2017-05")  # guilty
