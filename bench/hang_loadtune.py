"""A scenario's data set as a loadtune workload; the variable HANG_SCENARIO names the file."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

import torch
from loadtune.workload import Workload

BATCH_SIZE = 8


def get_workload() -> Workload:
    path = Path(os.environ["HANG_SCENARIO"])
    sys.path.insert(0, str(path.parent))
    make_loader = importlib.import_module(path.stem).make_loader

    def train_step(model: Any, optimizer: Any, batch: torch.Tensor, device: Any) -> torch.Tensor:
        optimizer.zero_grad()
        loss = model(batch.to(device).reshape(-1, 1)).mean()
        loss.backward()
        optimizer.step()
        return loss

    return Workload(
        name=path.stem,
        make_dataset=lambda: make_loader(0, None, BATCH_SIZE).dataset,
        make_model=lambda: torch.nn.Linear(1, 1),
        train_step=train_step,
        make_optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.0),
        default_batch_size=BATCH_SIZE,
    )
