"""Frozen dataclasses for what is to be run: the specs and sizes that parent and child share."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

# other modules import cells and decoding from here
from ctrkit.core.cell import CELL_AXES as CELL_AXES
from ctrkit.core.cell import DEVICES as DEVICES
from ctrkit.core.cell import LOADERS as LOADERS
from ctrkit.core.cell import NUMERICS as NUMERICS
from ctrkit.core.cell import START_METHODS as START_METHODS
from ctrkit.core.cell import Cell as Cell
from ctrkit.core.cell import make_cell as make_cell
from ctrkit.core.values import decode as decode
from ctrkit.core.values import encode as encode

#: The workload of a command without `--workload`.
DEFAULT_WORKLOAD = "mdaf"
#: Keys that `--set` accepts for a user's `make_loader`.
LOADER_SETTINGS = ("epochs", "batch_size")


@dataclass(frozen=True, kw_only=True)
class ScriptSpec:
    """A training script as its user starts it, unchanged.

    Args:
        command: the words after `--` as typed, including placeholders such as `{workers}`.
        folder: the folder to start it in; relative paths in the command refer to it.
        environment: variables of `--env KEY=VALUE`, added to the caller's environment.
        epochs: number of epochs of the real run, if the user gave it.
        train_loader: number of the training DataLoader, if the user gave it (0: the first one
            made).
    """

    command: list[str]
    folder: str
    environment: dict[str, str] = field(default_factory=dict)
    epochs: int | None = None
    train_loader: int | None = None


#: `WorkloadSpec.target` of a script.
SCRIPT_TARGET = "script"


@dataclass(frozen=True, kw_only=True)
class WorkloadSpec:
    """The workload that a child runs.

    Attributes:
        target: the name of a plug-in, `FILE.py:NAME` with an absolute path, or SCRIPT_TARGET.
        settings: the plug-in's settings as plain values.
        script: the script, if the target is SCRIPT_TARGET.
    """

    target: str = DEFAULT_WORKLOAD
    data: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    script: ScriptSpec | None = None


Watch = tuple[str, Literal["max", "min"]]
"""A metric of a workload, and whether more or less of it is better."""


@dataclass(frozen=True, kw_only=True)
class RunSizes:
    """Sizes of the real run; None for what is unknown before it (a loader's length, epochs).

    Numbers of batches are for the batch size that the sizes were asked for.

    Attributes:
        patience: epochs without a gain before the run ends; 0: never.
        validation_batches: batches of all validations of one epoch.
        validations: validations per epoch; None if not counted: one, if there is any.
        checkpoints: checkpoints per epoch; None if not counted: one, if there is any.
        checkpoint_every_s: seconds of an epoch's steps after which the run is also saved.
        validation_share: of the epochs, those that end with a validation; None: all do.
        checkpoint_share: of the epochs, those that end with a checkpoint; None: all do.
    """

    epochs: int | None = None
    train_rows: int | None = None
    train_batches: int | None = None
    validation_rows: int | None = None
    validation_batches: int | None = None
    patience: int = 0
    validations: int | None = None
    checkpoints: int | None = None
    checkpoint_every_s: float | None = None
    validation_share: float | None = None
    checkpoint_share: float | None = None

    def at(self, batch_size: int, *, epochs: int | None = None) -> RunSizes:
        """The sizes for another batch size, or for another number of epochs."""

        def batches(rows: int | None, known: int | None) -> int | None:
            return known if rows is None else -(-rows // batch_size)

        return dataclasses.replace(
            self,
            epochs=epochs or self.epochs,
            train_batches=batches(self.train_rows, self.train_batches),
            validation_batches=batches(self.validation_rows, self.validation_batches),
        )


@dataclass(frozen=True, kw_only=True)
class WindowPlan:
    """How much one trial of a probe measures at most; the bound that comes first ends a window.

    Attributes:
        count_s: seconds for which to count on, if the epoch's length is only a promise.
        validation_from: where to time validation batches, from 0 (the beginning) to 1 (the end).
        epoch_share: where in the first epoch the measured steps begin, from 0 to 1, if the loader
            can skip to there.
    """

    window_s: float = 10.0
    min_steps: int = 3
    max_steps: int = 2000
    attribution_steps: int = 2
    count_s: float = 0.0
    boundary: bool = True
    boundary_steps: int = 2
    validation_batches: int = 20
    validation_from: float = 0.0
    checkpoints: int = 2
    epoch_share: float = 0.0


#: Default seconds between two checkpoints within an epoch.
CHECKPOINT_EVERY_S = 600.0


@dataclass(frozen=True, kw_only=True)
class TrainPlan:
    """What a real run does, apart from its phase.

    Attributes:
        run_folder: where epochs.csv and checkpoints go.
        epochs: number of epochs; None: only `max_steps` or the user ends the run.
        allow_sleep: an option of the supervisor, stored here for resuming.
        abort_after_s: likewise.
    """

    run_folder: str
    epochs: int | None
    max_steps: int | None = None
    checkpoint_every_s: float = CHECKPOINT_EVERY_S
    resume: bool = False
    allow_sleep: bool = False
    abort_after_s: float | None = None


TrialKind = Literal["inspect", "examine", "full", "compute", "loader", "train"]


@dataclass(frozen=True, kw_only=True)
class ChildSpec:
    """Everything that a child process needs; written as `spec.json` into its `folder`.

    Attributes:
        spawned_at_s: the parent's `time.monotonic()` at the launch. The clock is the same for all
            processes (Linux, macOS), so start-up includes the interpreter and the imports.
        put_in: the axes of `cell` that the observer changes inside a script; the script keeps its
            own values for the others.
    """

    kind: TrialKind
    folder: str
    workload: WorkloadSpec
    cell: Cell
    spawned_at_s: float = 0.0
    windows: WindowPlan = field(default_factory=WindowPlan)
    train: TrainPlan | None = None
    put_in: list[str] = field(default_factory=list)
