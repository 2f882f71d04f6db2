"""The position of a run: what is done, what is left, and how a checkpoint stores it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ctrkit.child.training.checkpoint import differences, load_checkpoint
from ctrkit.child.training.own_metrics import is_better, watched_value
from ctrkit.child.workloads.protocol import Workload
from ctrkit.core.config import NUMERICS, Cell, Watch
from ctrkit.core.epochs import read_epochs
from ctrkit.core.errors import UsageError


@dataclass(kw_only=True)
class Position:
    """The position of a run; all of it goes into the checkpoint.

    Attributes:
        epoch: the current epoch.
        batch: batches done of the current epoch.
        rows: rows done of the current epoch.
        wall_s: seconds spent on the current epoch so far.
        steps: steps done, over all epochs.
        trained: the loader has ended, and the epoch only has to be validated.
        counted: batches of the last epoch that was run to its end, whatever `len()` says.
        best_value: the best value of the watched metric, in `best_epoch`.
        best_lost: the disk refused the checkpoint of the best epoch.
    """

    epoch: int = 1
    batch: int = 0
    rows: int = 0
    wall_s: float = 0.0
    steps: int = 0
    best_epoch: int | None = None
    best_value: float | None = None
    watch: Watch | None = None
    epochs_without_gain: int = 0
    history: list[dict[str, float | str | None]] = field(default_factory=list)
    trained: bool = False
    counted: int | None = None
    best_lost: bool = False

    def count_step(self, rows: int) -> None:
        """Count one more batch that was trained on, with its rows over all ranks."""
        self.batch += 1
        self.steps += 1
        self.rows += rows

    def end_training(self) -> None:
        """The loader has no more batches in this epoch."""
        self.trained, self.counted = True, self.batch

    def watch_for(self, watch: Watch | None) -> None:
        """Judge epochs by this metric from now on; forget the best value of another metric."""
        if watch != self.watch:
            self.best_epoch = self.best_value = None
            self.epochs_without_gain = 0
        self.watch = watch

    def judge(self, columns: Mapping[str, float | str | None]) -> bool:
        """Update early stopping's count; True if this epoch is the best so far. NaN never is."""
        value = watched_value(columns, self.watch)
        if value is None or self.watch is None:
            return False
        if is_better(value, self.best_value, self.watch):
            self.best_value, self.best_epoch = value, self.epoch
            self.epochs_without_gain = 0
            return True
        self.epochs_without_gain += 1
        return False

    def next_epoch(self) -> None:
        """Go on to the next epoch."""
        self.epoch += 1
        self.batch, self.rows, self.wall_s, self.trained = 0, 0, 0.0, False

    def as_saved(self, elapsed_s: float, *, at_beginning: bool) -> dict[str, Any]:
        """The values for a checkpoint.

        Args:
            elapsed_s: seconds to add to the epoch's time.
            at_beginning: save the beginning of the epoch instead of the current position.
        """
        values = dataclasses.asdict(self)
        values["wall_s"] += elapsed_s
        if at_beginning:
            values["steps"] -= self.batch
            values |= {"batch": 0, "rows": 0, "wall_s": 0.0, "trained": False}
        return values


def identity(workload: Workload, cell: Cell) -> dict[str, Any]:
    """What must be equal for a run to continue from a checkpoint, under names for messages."""
    return {
        "workload": workload.name,
        "data fingerprint": workload.data_fingerprint(),
        "batch size": cell.batch_size,
        **{axis: getattr(cell, axis) for axis in NUMERICS},
        **workload.settings(),
        "workload fingerprint": workload.fingerprint(),
    }


def _position_of(saved: Mapping[str, Any]) -> Position:
    values = dict(saved)
    # from a version in which workloads could not choose the watched metric
    if "best_val_auc" in values:
        best = values.pop("best_val_auc")
        values |= {"best_value": best if math.isfinite(best) else None, "watch": ("val_auc", "max")}
    if values.get("watch") is not None:
        values["watch"] = tuple(values["watch"])
    return Position(**values)


def read_state(
    path: Path, epochs_path: Path, wanted: Mapping[str, Any]
) -> tuple[Mapping[str, Any], Position]:
    """Load a checkpoint, and the position in it.

    Args:
        path: the checkpoint.
        epochs_path: `epochs.csv`; only this file has the time that an epoch's own checkpoint took.
        wanted: the `identity` that the checkpoint must have.

    Raises:
        UsageError: the checkpoint is not whole, or belongs to another experiment.
    """
    state = load_checkpoint(path)
    # a setting that an older checkpoint lacks had its default value
    if different := differences({**NUMERICS, **state["identity"]}, wanted):
        raise UsageError(
            f"{path}: cannot be resumed: {different}; give it what it was started "
            "with, or start a new run"
        )
    position = _position_of(state["position"])
    written = {row["epoch"]: row["wall_s"] for row in read_epochs(epochs_path, whole=True)}
    for row in position.history:
        epoch = row["epoch"]
        if isinstance(epoch, int | float):
            row["wall_s"] = written.get(epoch) or row["wall_s"]
    return state, position
