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
    """Where the run stands; all of it goes into the checkpoint.

    `batch` and `rows` are done of `epoch`, which took `wall_s` so far; `steps` adds up over epochs.
    `trained`: the loader ended, and the epoch has only to be validated. `counted`: batches of the
    last epoch that was seen to its end, whatever `len()` says. `best_value` is that of the metric
    that is watched, in `best_epoch`; `best_lost` where the disk refused to keep that one.
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
        """One more batch of so many rows, over all ranks, was trained on."""
        self.batch += 1
        self.steps += 1
        self.rows += rows

    def end_training(self) -> None:
        """The loader has no more batches for this epoch."""
        self.trained, self.counted = True, self.batch

    def watch_for(self, watch: Watch | None) -> None:
        """Judge epochs by this metric from now on; what was best by another one is forgotten."""
        if watch != self.watch:
            self.best_epoch = self.best_value = None
            self.epochs_without_gain = 0
        self.watch = watch

    def judge(self, columns: Mapping[str, float | str | None]) -> bool:
        """Early stopping's count; True if this epoch is the best one so far. NaN is no gain."""
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
        """The epoch is over."""
        self.epoch += 1
        self.batch, self.rows, self.wall_s, self.trained = 0, 0, 0.0, False

    def as_saved(self, elapsed_s: float, *, at_beginning: bool) -> dict[str, Any]:
        """Its values for a checkpoint.

        Args:
            elapsed_s: to be added to the epoch's time.
            at_beginning: keep the beginning of the epoch instead.
        """
        values = dataclasses.asdict(self)
        values["wall_s"] += elapsed_s
        if at_beginning:
            values["steps"] -= self.batch
            values |= {"batch": 0, "rows": 0, "wall_s": 0.0, "trained": False}
        return values


def identity(workload: Workload, cell: Cell) -> dict[str, Any]:
    """What must be equal for a checkpoint to be continued, in people's words."""
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
    if "best_val_auc" in values:  # before workloads could say what is watched
        best = values.pop("best_val_auc")
        values |= {"best_value": best if math.isfinite(best) else None, "watch": ("val_auc", "max")}
    if values.get("watch") is not None:
        values["watch"] = tuple(values["watch"])
    return Position(**values)


def read_state(
    path: Path, epochs_path: Path, wanted: Mapping[str, Any]
) -> tuple[Mapping[str, Any], Position]:
    """A checkpoint and the position in it.

    Args:
        path: the checkpoint.
        epochs_path: `epochs.csv`: only it has the time that an epoch's own checkpoint took.
        wanted: the `identity` that it must have.

    Raises:
        UsageError: no whole checkpoint, or one of something else.
    """
    state = load_checkpoint(path)
    # what an older checkpoint does not name was the default
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
