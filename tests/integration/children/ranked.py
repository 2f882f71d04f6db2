"""MDAF on a tiny store; notes which rows of which batch each rank takes."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ctrkit.child.training.distributed import current_ranks
from ctrkit.core.config import Cell
from ctrkit.ctr.plugin import load_phase
from ctrkit.ctr.workload import MdafWorkload


class Recording:
    """The loader, and a line for each part of a batch that it hands out."""

    def __init__(self, loader: Any, path: Path) -> None:
        self.loader, self.path, self.rank = loader, path, current_ranks().rank

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        self.epoch, self.first = epoch, first_batch
        self.loader.set_epoch(epoch, first_batch)

    def __iter__(self) -> Iterator[Any]:
        order = self.loader.order()
        parts = list(self.loader.slices())
        for number, (part, batch) in enumerate(zip(parts, self.loader, strict=True), self.first):
            line = json.dumps([self.epoch, number, self.rank, order[part].tolist()]) + "\n"
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(line)
            if (self.epoch, number, self.rank) == (1, 12, 1):
                hang_once(os.environ.get("RANKED_HANGS_ONCE"))
            yield batch

    def close(self) -> None:
        self.loader.close()


def hang_once(path: str | None) -> None:
    if path is not None and not Path(path).exists():
        Path(path).touch()
        threading.Event().wait()


class Recorded(MdafWorkload):
    """With parameters of double precision, so that Adam's root of next to nothing stays that.

    Where a gradient is zero but for rounding, Adam divides that rounding by its own root: in single
    precision by about its epsilon, so that the update is whatever the processor's sums come to.
    """

    def make_task(self, cell: Cell) -> Any:
        torch.set_default_dtype(torch.float64)
        return super().make_task(cell)

    def train_loader(self, cell: Cell) -> Any:
        return Recording(super().train_loader(cell), Path(os.environ["RANKED_ROWS"]))


def recorded() -> Recorded:
    overrides = {"model": "bst", "history_length": "8", "dropout": os.environ["RANKED_DROPOUT"]}
    return Recorded(Path(os.environ["RANKED_STORE"]), load_phase("phase3", overrides))
