"""The axes of the matrix in one table, and `Cell`, which has a value for each axis.

A row of the table is a field of `Cell` with its `Axis`. The options of the commands, the checks,
the cells that a probe tries, the words of reports and the id of a cell are made from it. To add an
axis, add a field here and the code that applies it in the child.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import NoneType
from typing import Any, get_args, get_type_hints

from ctrkit.core.environment import physical_cores
from ctrkit.core.errors import UsageError
from ctrkit.core.units import format_count
from ctrkit.core.values import decode

DEVICES = ("cpu", "mps", "cuda")
LOADERS = ("rows", "batches", "thread", "resident")
#: loaders that have no worker processes
WITHOUT_WORKERS = ("thread", "resident")
START_METHODS = ("fork", "spawn", "forkserver")

_MOST_DEFAULT_WORKERS = 8
_MOST_WORKERS_BESIDE_A_GPU = 32
_SWITCHES = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What the values that a probe tries depend on.

    Args:
        devices: that the machine has.
        loaders: that the workload has.
        batch_size: of the workload's real run.
        cores: physical ones, of two kinds the fast ones.
        usable_cores: what a quota leaves of them.
        all_cores: with the slow ones of a processor that has two kinds (Apple silicon).
        device: the one of `devices` whose cells are made.
    """

    devices: tuple[str, ...]
    loaders: tuple[str, ...]
    batch_size: int
    cores: int
    usable_cores: float
    all_cores: int
    device: str = "cpu"


@dataclass(frozen=True, kw_only=True)
class Axis:
    """An axis of the matrix.

    Args:
        help: of its option on the command line.
        choices: the values of an axis of names.
        also_typed: what its option takes beside them.
        also_in_cells: values that only a workload can choose.
        least: the smallest value of an axis of numbers.
        of_workers: it means nothing without worker processes.
        with_workers: its default where there are workers.
        loading: it changes how batches are made, not what is computed with them.
        numerics: it changes what a step computes, or its rounding.
        devices: those that any other value than the default needs; empty: none in particular.
        devices_why: why, with `{device}` for the one that it is not for.
        tries: the values that a probe tries where none is named; None: its default alone.
        in_id: its part of a cell's id, with `{}` for the value.
        always_said: ids and words name it also where it is the default.
        words: how reports say a value.
        label: the same as short as a chart needs it; `words` where it is None.
        headings: of its column in a table, and a shorter one; its name where they are empty.
        name: of the field.
        kind: of its values.
        default: of a cell that does not name it.
    """

    help: str = ""
    choices: tuple[str, ...] = ()
    also_typed: tuple[str, ...] = ()
    also_in_cells: tuple[str, ...] = ()
    least: int = 0
    of_workers: bool = False
    with_workers: Any = None
    loading: bool = False
    numerics: bool = False
    devices: tuple[str, ...] = ()
    devices_why: str = ""
    tries: Callable[[Surroundings], tuple[Any, ...]] | None = None
    in_id: str = "{}"
    always_said: bool = False
    words: Callable[[Any], str] | None = None
    label: Callable[[Any], str] | None = None
    headings: tuple[str, str] = ("", "")
    name: str = ""
    kind: type = str
    default: Any = None

    @property
    def option(self) -> str:
        """`--start-method`."""
        return f"--{self.name.replace('_', '-')}"

    def read(self, text: str) -> Any:
        """The value of an option.

        Raises:
            UsageError: it is none.
        """
        if self.kind is bool:
            if text.lower() not in _SWITCHES:
                raise UsageError(f"{self.option}: '{text}' is neither true nor false")
            return _SWITCHES[text.lower()]
        if self.kind is int:
            try:
                value: Any = int(text)
            except ValueError:
                raise UsageError(f"{self.option}: '{text}' is no whole number") from None
        else:
            value = text
        if problem := self.problem(value, "", (*self.also_typed, *self.choices)):
            raise UsageError(f"{self.option}: {problem}")
        return value

    def problem(self, value: Any, said: str, choices: tuple[str, ...] = ()) -> str:
        """Why a value is none of this axis, empty where it is one.

        Args:
            value: of the axis' kind.
            said: what the axis is called in the words.
            choices: the names that it has; those of a cell if left out.
        """
        if value is None or self.kind is bool:
            return ""
        if self.kind is int:
            words = f"{said} is {value}, but must be at least {self.least}".strip()
            return words if value < self.least else ""
        known = choices or (*self.choices, *self.also_in_cells)
        unknown = f"unknown {said} '{value}'" if said else f"unknown '{value}'"
        return "" if value in known else f"{unknown}; known are {', '.join(known)}"

    def device_problem(self, value: Any, device: str) -> str:
        """Why a value does not go with a device; empty where it does."""
        if value == self.default or not self.devices or device in self.devices:
            return ""
        return self.devices_why.format(device=device)

    def tried(self, around: Surroundings) -> tuple[Any, ...]:
        """The values that a probe tries where none is named."""
        if self.tries is not None:
            return self.tries(around)
        return (self.default if self.with_workers is None else self.with_workers,)


def axis(default: Any, row: Axis) -> Any:
    """A field of a cell: an axis with its default."""
    return field(default=default, metadata={"axis": row})


def default_workers(cores: int, usable: float | None = None) -> tuple[int, ...]:
    """Worker counts of a probe that names none: none, a few, and all but one core.

    Where a quota allows less than one core (`usable`), a worker can only take from the loop.
    """
    if usable is not None and usable < 1:
        return (0,)
    counts = {0, min(2, max(1, cores))}
    if cores > 3:
        counts.add(min(cores - 1, _MOST_DEFAULT_WORKERS))
    return tuple(sorted(counts))


def workers_beside_a_gpu(usable: float) -> tuple[int, ...]:
    """Worker counts beside a device that leaves the cores to them: doubled up to the cores."""
    most = min(int(usable), _MOST_WORKERS_BESIDE_A_GPU)
    doubled = {2**power for power in range(1, most.bit_length())}
    return tuple(sorted({0, most, *(count for count in doubled if count <= most)}))


def _tried_threads(around: Surroundings) -> tuple[int, ...]:
    return tuple(dict.fromkeys((around.cores, around.all_cores)))


def _tried_workers(around: Surroundings) -> tuple[int, ...]:
    if around.device == "cuda":
        return workers_beside_a_gpu(around.usable_cores)
    return default_workers(around.cores, around.usable_cores)


def _counted(noun: str, none: str = "") -> Callable[[int], str]:
    """`1 thread`, `2 threads`; `none` for 0."""

    def words(count: int) -> str:
        if not count and none:
            return none
        return f"{format_count(count)} {noun}" + ("" if count == 1 else "s")

    return words


def _switched(on: str) -> Callable[[bool], str]:
    return lambda value: on if value else ""


#: Loaders that ctrkit does not make: a user's own `make_loader`, a script's, or none at all.
_OWN_LOADERS = {
    "custom": "own loader",
    "script": "the script's loader",
    "none": "no DataLoader",
}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One configuration of the matrix. Make one with `make_cell`, which fills in the defaults.

    `start_method` and `prefetch` are None without workers. `threads` are torch's intra-op threads.
    `loader` is one of LOADERS, `custom` for a user's own `make_loader`, `script` for a script's own
    DataLoader, or `none` for a script without one.
    """

    device: str = axis("cpu", Axis(
        help="Where to train: auto, cpu, mps, cuda.",
        choices=DEVICES, also_typed=("auto",), always_said=True, words=str,
        tries=lambda around: around.devices or ("cpu",),
    ))  # fmt: skip
    loader: str = axis("thread", Axis(
        help="The loader of the built-in example: rows, batches, thread, resident.",
        choices=LOADERS, also_in_cells=tuple(_OWN_LOADERS), loading=True, always_said=True,
        words=lambda name: _OWN_LOADERS.get(name, f"{name} loader"),
        label=lambda name: _OWN_LOADERS.get(name, str(name)),
        tries=lambda around: around.loaders,
    ))  # fmt: skip
    workers: int = axis(0, Axis(
        help="Number of DataLoader worker processes, e.g. 0,2,4.",
        loading=True, in_id="w{}", always_said=True, words=_counted("worker", "no workers"),
        headings=("workers", "wrk"),
        tries=_tried_workers,
    ))  # fmt: skip
    start_method: str | None = axis(None, Axis(
        help="How workers are started: fork, spawn, forkserver.",
        choices=START_METHODS, loading=True, of_workers=True, with_workers="spawn", words=str,
        headings=("start", ""),
    ))  # fmt: skip
    prefetch: int | None = axis(None, Axis(
        help="Number of batches that each worker prefetches.",
        least=1, loading=True, of_workers=True, with_workers=2, in_id="p{}",
        words=lambda count: f"prefetch {count}", headings=("prefetch", "pre"),
        tries=lambda around: (2, 4) if around.device == "cuda" else (2,),
    ))  # fmt: skip
    persistent: bool = axis(False, Axis(
        help="Keep workers between epochs (persistent workers): true, false.",
        loading=True, of_workers=True, words=_switched("kept between epochs"),
        label=_switched("kept"), headings=("persistent", "kept"), tries=lambda _: (False, True),
    ))  # fmt: skip
    pin: bool = axis(False, Axis(
        help="Pin host memory (CUDA): true, false.",
        loading=True, devices=("cuda",), words=_switched("pinned memory"),
        devices_why="pinned memory speeds up copies to CUDA only, not to {device}",
        label=_switched("pinned"),
        tries=lambda around: (False, True) if around.device == "cuda" else (False,),
    ))  # fmt: skip
    threads: int = axis(1, Axis(
        help="Number of threads that torch computes with.",
        least=1, in_id="t{}", always_said=True, words=_counted("thread"),
        headings=("threads", "thr"), tries=_tried_threads,
    ))  # fmt: skip
    batch_size: int = axis(2048, Axis(
        help="Rows per batch. Default: the workload's.",
        least=1, in_id="b{}", always_said=True, words=lambda rows: f"batch {format_count(rows)}",
        headings=("batch", ""), tries=lambda around: (around.batch_size,),
    ))  # fmt: skip
    nproc: int = axis(1, Axis(
        help="Number of processes that train together; each takes its part of every batch.",
        least=1, devices=("cpu", "cuda"), devices_why="device {device} has one process",
        in_id="n{}", words=lambda count: f"{count} process" + ("" if count == 1 else "es"),
        headings=("processes", "nproc"),
    ))  # fmt: skip
    optimizer: str = axis("adam", Axis(
        help="adam; sparse-adam updates only the embedding rows that a batch touched. Changes the "
             "numerics: compare the loss too.",
        choices=("adam", "sparse-adam"), numerics=True,
    ))  # fmt: skip
    precision: str = axis("float32", Axis(
        help="float32; bf16 multiplies matrices in half the bits. Changes the numerics.",
        choices=("float32", "bf16"), numerics=True,
    ))  # fmt: skip
    compile: bool = axis(False, Axis(
        help="torch.compile of the dense parts: true, false. Changes the rounding; where there is "
             "no compiler it goes on without.",
        numerics=True,
    ))  # fmt: skip

    #: axes that mean nothing to the loader, which takes no such argument: no words name them
    unheeded: list[str] = field(default_factory=list, compare=False)

    @property
    def numerics(self) -> dict[str, Any]:
        """The axes that change what a step computes, where they are not the default."""
        given = {name: getattr(self, name) for name in NUMERICS}
        return {name: value for name, value in given.items() if value != NUMERICS[name]}

    @property
    def loads_ahead(self) -> bool:
        """Whether batches are made while the step computes: by workers, or by a loader's thread."""
        return self.workers > 0 or self.loader == "thread"

    @property
    def without_workers(self) -> Cell:
        """This cell, but that its training process makes the batches."""
        return dataclasses.replace(self, workers=0, **WITHOUT_ANY_WORKERS)

    @property
    def queued_batches(self) -> int:
        """Batches that wait in the queue of the workers at most."""
        return self.workers * (self.prefetch or 0)

    @property
    def cell_id(self) -> str:
        """Short, unique and fit for a file name: `cpu-batches-w2-spawn-p2-t2-b2048`."""
        return self._id()

    @property
    def name(self) -> str:
        """The id as people are shown it: without the axes that the loader does not heed."""
        return self._id(self.unheeded)

    def _id(self, without: Sequence[str] = ()) -> str:
        said = [
            (row, getattr(self, row.name))
            for row in axes_of(type(self))
            if row.name not in without
            and (row.always_said or getattr(self, row.name) != row.default)
        ]
        return "-".join(row.name if value is True else row.in_id.format(value)
                        for row, value in said)  # fmt: skip


_axes_of: dict[type, tuple[Axis, ...]] = {}


def axes_of(cell_type: type[Cell]) -> tuple[Axis, ...]:
    """The rows of the table, in the order of a cell."""
    if cell_type not in _axes_of:
        hints = get_type_hints(cell_type)
        _axes_of[cell_type] = tuple(
            dataclasses.replace(
                f.metadata.get("axis", Axis()),
                name=f.name,
                kind=next(
                    k for k in (*get_args(hints[f.name]), hints[f.name]) if k is not NoneType
                ),
                default=f.default,
            )
            for f in dataclasses.fields(cell_type)
            if f.name != "unheeded"
        )
    return _axes_of[cell_type]


def _plain_type(hint: Any) -> type:
    """`int` of `int | None`."""
    kinds: list[type] = [kind for kind in get_args(hint) or (hint,) if kind is not NoneType]
    return kinds[0]


AXES: Mapping[str, Axis] = {row.name: row for row in axes_of(Cell)}
CELL_AXES = tuple(AXES)
#: The axes that change the mathematics of a step, or its rounding, with the workload's own values.
NUMERICS: Mapping[str, Any] = {row.name: row.default for row in AXES.values() if row.numerics}
#: What the axes are that mean nothing without workers, in a cell that has none.
WITHOUT_ANY_WORKERS: Mapping[str, Any] = {
    row.name: row.default for row in AXES.values() if row.of_workers
}


def make_cell(where: str = "cell", **axes: Any) -> Cell:
    """A checked cell; what is left out takes its default.

    Defaults: thread loader, no workers, threads = physical cores (shared out among `nproc`); with
    workers spawn, prefetch 2.

    Raises:
        UsageError: an axis is unknown, of a wrong type or out of range.
    """
    axes = {key: value for key, value in axes.items() if value is not None}
    if axes.get("workers"):
        for row in AXES.values():
            if row.with_workers is not None:
                axes.setdefault(row.name, row.with_workers)
    processes = axes.get("nproc")
    if isinstance(processes, int) and processes > 0:  # else it is refused below
        axes.setdefault("threads", max(1, physical_cores() // processes))
    axes.setdefault("threads", physical_cores())
    cell = decode(Cell, axes, where)
    for row in AXES.values():
        if problem := row.problem(getattr(cell, row.name), row.name):
            raise UsageError(f"{where}: {problem}")
    return cell
