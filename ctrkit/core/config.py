"""Frozen dataclasses for what is to be run: the specs and sizes that parent and child share."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

# cells, and how values are read, are part of what this module is imported for
from ctrkit.core.cell import CELL_AXES as CELL_AXES
from ctrkit.core.cell import DEVICES as DEVICES
from ctrkit.core.cell import LOADERS as LOADERS
from ctrkit.core.cell import NUMERICS as NUMERICS
from ctrkit.core.cell import START_METHODS as START_METHODS
from ctrkit.core.cell import Cell as Cell
from ctrkit.core.cell import make_cell as make_cell
from ctrkit.core.values import decode as decode
from ctrkit.core.values import encode as encode

#: the workload of a command that names none
DEFAULT_WORKLOAD = "mdaf"
#: What `--set` may say of a user's `make_loader`.
LOADER_SETTINGS = ("epochs", "batch_size")


@dataclass(frozen=True, kw_only=True)
class ScriptSpec:
    """A training script as its user starts it, unchanged.

    Args:
        command: the words after `--` as typed, placeholders such as `{workers}` included.
        folder: where it is started; relative paths of the command mean this folder.
        environment: `--env KEY=VALUE`, on top of the caller's environment.
        epochs: how many the real run has, where the user said so.
        train_loader: number of the training DataLoader (the first one made is 0), where the
            user said so.
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
    """What a child runs.

    `target` is the name of a plug-in, `FILE.py:NAME` (an absolute path), or SCRIPT_TARGET: then
    `script` says which one. `settings` are the plug-in's, as plain values.
    """

    target: str = DEFAULT_WORKLOAD
    data: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    script: ScriptSpec | None = None


Watch = tuple[str, Literal["max", "min"]]
"""A metric of a workload, and whether more or less of it is better."""


@dataclass(frozen=True, kw_only=True)
class RunSizes:
    """Sizes of the real run. What is not known before (an unsized loader, epochs) is None.

    Batches are for the batch size the sizes were asked for. `patience` is in epochs, 0 is never.
    Validation batches and checkpoints are those of an epoch, however often it validates and saves;
    `validations` and `checkpoints` are None where they were not counted: one an epoch, if any.
    `checkpoint_every_s`: after so many seconds of an epoch's steps it is saved, too.
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

    def at(self, batch_size: int, *, epochs: int | None = None) -> RunSizes:
        """The sizes of the same rows at another batch size, or for another number of epochs."""

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
    """How much one probe trial measures, at most; whichever bound comes first ends a window.

    For `count_s` more an epoch whose length is only promised is counted, its batches only taken.
    `validation_from` is where in the validation data its batches are timed: 0 at the beginning, 1
    at the end.
    `epoch_share` is where in the first epoch the measured steps begin, 0 its first batch, if the
    loader can begin elsewhere.
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


#: How often a real run saves within an epoch where nobody says otherwise.
CHECKPOINT_EVERY_S = 600.0


@dataclass(frozen=True, kw_only=True)
class TrainPlan:
    """What a real run does beside its phase; `run_folder` receives epochs.csv and checkpoints.

    Without `epochs` only `max_steps` ends it. `allow_sleep` and `abort_after_s` are the
    supervisor's, kept here for when it is resumed.
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
    """All that a child process needs: written as `spec.json` into its own `folder`.

    `spawned_at_s` is the parent's `time.monotonic()` at the launch (the clock is system-wide on
    Linux and macOS), so that start-up includes the interpreter and the imports. `put_in` names
    those axes of `cell` that are put into a script from inside; it keeps its own for the others.
    """

    kind: TrialKind
    folder: str
    workload: WorkloadSpec
    cell: Cell
    spawned_at_s: float = 0.0
    windows: WindowPlan = field(default_factory=WindowPlan)
    train: TrainPlan | None = None
    put_in: list[str] = field(default_factory=list)
