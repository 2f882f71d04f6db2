"""Cells, sizes and specs: the frozen dataclasses that parent and child both understand."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import msgspec

from ctrkit.core.environment import physical_cores
from ctrkit.core.errors import UsageError

DEVICES = ("cpu", "mps", "cuda")
LOADERS = ("rows", "batches", "thread", "resident")
START_METHODS = ("fork", "spawn", "forkserver")
OPTIMIZERS = ("adam", "sparse-adam")
PRECISIONS = ("float32", "bf16")
#: the workload of a command that names none
DEFAULT_WORKLOAD = "mdaf"

T = TypeVar("T")


def decode(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    """A dataclass of type `kind` from a mapping read from JSON or TOML.

    Args:
        kind: a dataclass; nested dataclasses are decoded too.
        values: the mapping; keys that `kind` does not have are an error, missing ones default.
        where: what the values were read from, for the message.

    Raises:
        UsageError: an unknown key or a value of a wrong type.
    """
    known = [f.name for f in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise UsageError(f"{where}: unknown key '{key}'; known are {', '.join(known)}")
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise UsageError(f"{where}: {error}") from None


def encode(value: object) -> Any:
    """Plain JSON values (dict, list, str, int, float, None) of a dataclass."""
    # msgspec alone leaves out defaults of dataclasses that msgspec itself made
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    return msgspec.to_builtins(value)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One configuration of the matrix. Make one with `make_cell`, which fills in the defaults.

    `start_method` and `prefetch` are None without workers. `threads` are torch's intra-op threads.
    `loader` is one of LOADERS, or `custom` for a user's own `make_loader`. `optimizer`, `precision`
    and `compile` (torch.compile) change the numerics: see `numerics`.
    """

    device: str = "cpu"
    loader: str = "thread"
    workers: int = 0
    start_method: str | None = None
    prefetch: int | None = None
    persistent: bool = False
    pin: bool = False
    threads: int = 1
    batch_size: int = 2048
    nproc: int = 1
    optimizer: str = "adam"
    precision: str = "float32"
    compile: bool = False

    @property
    def numerics(self) -> dict[str, Any]:
        """The axes that change what a step computes, where they are not the default."""
        given = {axis: getattr(self, axis) for axis in NUMERICS}
        return {axis: value for axis, value in given.items() if value != NUMERICS[axis]}

    @property
    def loads_ahead(self) -> bool:
        """Whether batches are made while the step computes: by workers, or by a loader's thread."""
        return self.workers > 0 or self.loader == "thread"

    @property
    def without_workers(self) -> Cell:
        """This cell, but that its training process makes the batches."""
        return dataclasses.replace(
            self, workers=0, start_method=None, prefetch=None, persistent=False
        )

    @property
    def queued_batches(self) -> int:
        """Batches that wait in the queue of the workers at most."""
        return self.workers * (self.prefetch or 0)

    @property
    def cell_id(self) -> str:
        """Short, unique and fit for a file name: `cpu-batches-w2-spawn-p2-t2-b2048`."""
        parts = [self.device, self.loader, f"w{self.workers}"]
        if self.workers:
            parts += [str(self.start_method), f"p{self.prefetch}"]
        if self.persistent:
            parts.append("persistent")
        if self.pin:
            parts.append("pin")
        parts += [f"t{self.threads}", f"b{self.batch_size}"]
        if self.nproc > 1:
            parts.append(f"n{self.nproc}")
        parts += ["compile" if value is True else str(value) for value in self.numerics.values()]
        return "-".join(parts)


CELL_AXES = tuple(f.name for f in dataclasses.fields(Cell))
#: Axes that change the mathematics of a step, or its rounding, and what the phase means by itself.
NUMERICS: Mapping[str, Any] = {"optimizer": "adam", "precision": "float32", "compile": False}


def make_cell(where: str = "cell", **axes: Any) -> Cell:
    """A checked cell; what is left out takes its default.

    Defaults: thread loader, no workers, threads = physical cores (shared out among `nproc`); with
    workers spawn, prefetch 2.

    Raises:
        UsageError: an axis is unknown, of a wrong type or out of range.
    """
    axes = {key: value for key, value in axes.items() if value is not None}
    if axes.get("workers"):
        axes.setdefault("start_method", "spawn")
        axes.setdefault("prefetch", 2)
    processes = axes.get("nproc")
    if isinstance(processes, int) and processes > 0:  # else it is refused below
        axes.setdefault("threads", max(1, physical_cores() // processes))
    axes.setdefault("threads", physical_cores())
    cell = decode(Cell, axes, where)
    for name, value, known in (
        ("device", cell.device, DEVICES),
        ("loader", cell.loader, (*LOADERS, "custom")),
        ("start_method", cell.start_method, (*START_METHODS, None)),
        ("optimizer", cell.optimizer, OPTIMIZERS),
        ("precision", cell.precision, PRECISIONS),
    ):
        if value not in known:
            choices = ", ".join(str(choice) for choice in known if choice is not None)
            raise UsageError(f"{where}: unknown {name} '{value}'; known are {choices}")
    for name, number, least in (
        ("workers", cell.workers, 0),
        ("batch_size", cell.batch_size, 1),
        ("threads", cell.threads, 1),
        ("nproc", cell.nproc, 1),
        ("prefetch", 1 if cell.prefetch is None else cell.prefetch, 1),
    ):
        if number < least:
            raise UsageError(f"{where}: {name} is {number}, but must be at least {least}")
    return cell


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


@dataclass(frozen=True, kw_only=True)
class RunSizes:
    """Sizes of the real run. What is not known before (an endless or unsized loader) is None.

    Batches are for the batch size the sizes were asked for. `patience` is in epochs, 0 is never.
    """

    epochs: int
    train_rows: int | None = None
    train_batches: int | None = None
    validation_rows: int | None = None
    validation_batches: int | None = None
    patience: int = 0

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
    """How much one probe trial measures, at most; whichever bound comes first ends a window."""

    window_s: float = 10.0
    min_steps: int = 3
    max_steps: int = 2000
    attribution_steps: int = 2
    boundary: bool = True
    boundary_steps: int = 2
    validation_batches: int = 20
    checkpoints: int = 2


@dataclass(frozen=True, kw_only=True)
class TrainPlan:
    """What a real run does beside its phase; `run_folder` receives epochs.csv and checkpoints.

    `allow_sleep` and `abort_after_s` are the supervisor's, kept here for when it is resumed.
    """

    run_folder: str
    epochs: int
    max_steps: int | None = None
    checkpoint_every_s: float = 600.0
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
