"""A package that is imported when the loader is made, and that is not installed."""

from __future__ import annotations

import importlib

from torch.utils.data import DataLoader

EXPECT = {
    "title": "import error in the main process",
    "cells": {
        "0": "setup-failed",
        "fork": "setup-failed",
        "spawn": "setup-failed",
        "forkserver": "setup-failed",
    },
    "guilty": "main",
}


def make_loader(workers: int, start_method: str | None, batch_size: int) -> DataLoader:
    reader = importlib.import_module("a_reader_that_is_not_installed")  # guilty
    return DataLoader(reader.Rows(), batch_size, num_workers=workers)
