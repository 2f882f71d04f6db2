"""The axes of the matrix in one table, and `Cell`, which has a value for each axis.

A row of the table is a field of `Cell` with its `Axis`. The options of the commands, the checks,
the cells that a probe tries, the words of reports and the id of a cell are made from it. To add an
axis, add a field here and the code that applies it in the child.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import NoneType
from typing import Any, get_args, get_type_hints

from ctrkit.core.axes import Axis, axis, counted, switched, tried_threads, tried_workers
from ctrkit.core.environment import physical_cores
from ctrkit.core.errors import UsageError
from ctrkit.core.units import format_count
from ctrkit.core.values import decode

DEVICES = ("cpu", "mps", "cuda")
LOADERS = ("rows", "batches", "thread", "resident")
#: Loaders without worker processes.
WITHOUT_WORKERS = ("thread", "resident")
START_METHODS = ("fork", "spawn", "forkserver")


#: Words for loaders that ctrkit does not make: a user's `make_loader`, a script's, or none.
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
        loading=True, in_id="w{}", always_said=True, words=counted("worker", "no workers"),
        headings=("workers", "wrk"),
        tries=tried_workers,
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
        loading=True, of_workers=True, words=switched("kept between epochs"),
        label=switched("kept"), headings=("persistent", "kept"), tries=lambda _: (False, True),
    ))  # fmt: skip
    pin: bool = axis(False, Axis(
        help="Pin host memory (CUDA): true, false.",
        loading=True, devices=("cuda",), words=switched("pinned memory"),
        devices_why="pinned memory speeds up copies to CUDA only, not to {device}",
        label=switched("pinned"),
        tries=lambda around: (False, True) if around.device == "cuda" else (False,),
    ))  # fmt: skip
    threads: int = axis(1, Axis(
        help="Number of threads that torch computes with.",
        least=1, in_id="t{}", always_said=True, words=counted("thread"),
        headings=("threads", "thr"), tries=tried_threads,
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

    #: axes that the loader does not take as arguments; no words name them
    unheeded: list[str] = field(default_factory=list, compare=False)

    @property
    def numerics(self) -> dict[str, Any]:
        """The axes with `numerics` whose values differ from the default."""
        given = {name: getattr(self, name) for name in NUMERICS}
        return {name: value for name, value in given.items() if value != NUMERICS[name]}

    @property
    def loads_ahead(self) -> bool:
        """Whether workers or a loader's thread make batches while the step computes."""
        return self.workers > 0 or self.loader == "thread"

    @property
    def without_workers(self) -> Cell:
        """This cell without workers: the training process makes the batches."""
        return dataclasses.replace(self, workers=0, **WITHOUT_ANY_WORKERS)

    @property
    def queued_batches(self) -> int:
        """The most batches that can wait in the workers' queue."""
        return self.workers * (self.prefetch or 0)

    @property
    def cell_id(self) -> str:
        """A short unique id that can be a file name: `cpu-batches-w2-spawn-p2-t2-b2048`."""
        return self._id()

    @property
    def name(self) -> str:
        """The id for people: without the axes that the loader does not take."""
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
    """The axes of a cell type, in the order of its fields."""
    if cell_type not in _axes_of:
        hints = get_type_hints(cell_type)
        _axes_of[cell_type] = tuple(
            dataclasses.replace(
                f.metadata.get("axis", Axis()),
                name=f.name,
                kind=_plain_type(hints[f.name]),
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
#: The axes that change the mathematics or rounding of a step, with their defaults.
NUMERICS: Mapping[str, Any] = {row.name: row.default for row in AXES.values() if row.numerics}
#: Values of the axes that mean nothing without workers, for a cell without workers.
WITHOUT_ANY_WORKERS: Mapping[str, Any] = {
    row.name: row.default for row in AXES.values() if row.of_workers
}


def make_cell(where: str = "cell", **axes: Any) -> Cell:
    """Make a checked cell; axes that are left out take their defaults.

    Defaults: thread loader, no workers, threads = physical cores (divided among `nproc`); with
    workers: spawn, prefetch 2.

    Raises:
        UsageError: an axis is unknown, has the wrong type, or is out of range.
    """
    axes = {key: value for key, value in axes.items() if value is not None}
    if axes.get("workers"):
        for row in AXES.values():
            if row.with_workers is not None:
                axes.setdefault(row.name, row.with_workers)
    processes = axes.get("nproc")
    if isinstance(processes, int) and processes > 0:  # other values are refused below
        axes.setdefault("threads", max(1, physical_cores() // processes))
    axes.setdefault("threads", physical_cores())
    cell = decode(Cell, axes, where)
    for row in AXES.values():
        if problem := row.problem(getattr(cell, row.name), row.name):
            raise UsageError(f"{where}: {problem}")
    return cell
