"""A training script without a `__main__` guard: each spawned worker runs it and dies."""

from __future__ import annotations

import sys
from pathlib import Path

from torch.utils.data import DataLoader

EXPECT = {
    "title": "missing __main__ guard, 1 MB data set",
    "cells": {"0": "ok", "fork": "ok", "spawn": "deadlock", "forkserver": "worker-died"},
    "guilty": "worker",
    "guilty_file": "scripts/unguarded.py",
}


def make_loader(workers: int, start_method: str | None, batch_size: int) -> DataLoader:
    # what multiprocessing sees after `python unguarded.py`: it has its workers run that script
    main = sys.modules["__main__"]
    main.__spec__ = None
    main.__file__ = str(Path(__file__).with_name("scripts") / "unguarded.py")
    # a list of floats is pickled as it is; a tensor would travel through shared memory
    rows = [float(value) for value in range(120_000)]
    return DataLoader(
        rows, batch_size * 300, num_workers=workers, multiprocessing_context=start_method
    )
