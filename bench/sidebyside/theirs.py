"""The workload of bench/loadtune.py for loadtune."""

from __future__ import annotations

from typing import Any

import torch
from common import BATCH_SIZE, Rows, case, make_model, make_optimizer
from loadtune.workload import Workload


def train_step(model: Any, optimizer: Any, batch: torch.Tensor, device: Any) -> torch.Tensor:
    optimizer.zero_grad()
    loss = model(batch.to(device)).square().mean()
    loss.backward()
    optimizer.step()
    return loss


def get_workload() -> Workload:
    return Workload(
        name=case(),
        make_dataset=Rows,
        make_model=make_model,
        train_step=train_step,
        make_optimizer=make_optimizer,
        default_batch_size=BATCH_SIZE,
    )
