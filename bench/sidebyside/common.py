"""The data set, model and step for both tools; the variable CASE is `input` or `compute`."""

from __future__ import annotations

import os
import time

import torch
from torch.utils.data import Dataset

BATCH_SIZE = 32
WIDTH = 512
ROW_S = {"input": 0.003, "compute": 0.00002}
DEPTH = {"input": 1, "compute": 16}
BATCHES = {"input": 80, "compute": 100}


def case() -> str:
    return os.environ["CASE"]


class Rows(Dataset[torch.Tensor]):
    """Rows that take a moment each, as from a disk or a network."""

    def __len__(self) -> int:
        return BATCHES[case()] * BATCH_SIZE

    def __getitem__(self, index: int) -> torch.Tensor:
        time.sleep(ROW_S[case()])
        return torch.full((WIDTH,), float(index % 7))


def make_model() -> torch.nn.Module:
    layers: list[torch.nn.Module] = []
    for _ in range(DEPTH[case()]):
        layers += [torch.nn.Linear(WIDTH, WIDTH), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(WIDTH, 1))


def make_optimizer(model: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=1e-6)
