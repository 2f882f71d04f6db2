"""The progress file: a small memory map that the child writes and the supervisor reads.

There is no heartbeat thread: only the loop itself writes here, so a silent file is a silent loop.
DataLoader workers write files of their own, which also tell who is busy when the loop waits.
A write costs about a microsecond and makes no system call.

Standard library only, and Python 3.9: it also runs inside a script's own interpreter.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import Any

MAGIC = 0x63747231
_SEQUENCE = struct.Struct("<Q")
_LAYOUT = struct.Struct("<qIIqqqqdddqqd")
_WORKER_LAYOUT = struct.Struct("<qIIqqd")
_RANK_LAYOUT = struct.Struct("<qIIqqdd")


class Stage(IntEnum):
    """Where a child is; every change of stage is progress."""

    IMPORT = 0
    DATA = 1
    MODEL = 2
    FIRST_BATCH = 3
    STEP = 4
    EPOCH_BOUNDARY = 5
    VALIDATION = 6
    CHECKPOINT = 7
    SHUTDOWN = 8
    DONE = 9
    METRICS = 10

    @property
    def label(self) -> str:
        """The stage as people read it: `first batch`."""
        return self.name.lower().replace("_", " ")


@dataclass(frozen=True)
class Progress:
    """One reading of the file.

    `step` counts within the epoch, `steps` is the epoch's length (0 if unknown), `rows` and
    `wait_s` add up over the epoch; `written_s` is the writer's `time.monotonic()`; `writes` grows
    with each write. `loss` is NaN where there is none. `bad_loss` is the first loss that was NaN or
    infinite, at the step `bad_step` of `bad_epoch`, which is 0 while there was none.
    """

    pid: int
    stage: Stage
    epoch: int
    step: int
    steps: int
    rows: int
    writes: int
    written_s: float
    wait_s: float
    loss: float
    bad_epoch: int = 0
    bad_step: int = 0
    bad_loss: float = 0.0


class WorkerStage(IntEnum):
    """Where a DataLoader worker is: its start with `worker_init_fn`, the data set, or waiting."""

    STARTING = 0
    FETCHING = 1
    IDLE = 2


@dataclass(frozen=True)
class WorkerProgress:
    """One reading of a worker's file: it has made `batches` so far; `worker` is its number."""

    pid: int
    worker: int
    stage: WorkerStage
    batches: int
    writes: int
    written_s: float


@dataclass(frozen=True)
class RankProgress(WorkerProgress):
    """One reading of a rank's file: `worker` is the rank, `batches` how often it has waited.

    `waited_s` adds up for how long, without a wait that goes on.
    """

    waited_s: float = 0.0


def new_map(path: Path, size: int) -> mmap.mmap:
    """A file of zeros in a map. One that was there before stays whole for who writes into it."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_bytes(bytes(size))
    with open(aside, "r+b") as file:
        new = mmap.mmap(file.fileno(), size)
    os.replace(aside, path)
    return new


class Slot:
    """A record in a memory map of its own, written whole or, for the reader, not yet."""

    def __init__(self, path: str | os.PathLike[str], layout: struct.Struct) -> None:
        self._map = new_map(Path(path), _SEQUENCE.size + layout.size)
        self._layout, self._sequence = layout, 0

    def write(self, *values: float) -> None:
        # A reader that sees an odd or a changed sequence number reads again.
        self._sequence += 2
        _SEQUENCE.pack_into(self._map, 0, self._sequence - 1)
        self._layout.pack_into(self._map, _SEQUENCE.size, *values)
        _SEQUENCE.pack_into(self._map, 0, self._sequence)

    def close(self) -> None:
        self._map.close()


class ProgressWriter:
    """The loop's side; `path` is created. Usable as a context manager."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._slot = Slot(path, _LAYOUT)
        self._stage, self._epoch, self._steps = Stage.IMPORT, 0, 0
        self._step, self._rows, self._wait_s, self._loss = 0, 0, 0.0, float("nan")
        self._bad: tuple[int, int, float] = (0, 0, 0.0)
        self._write()

    @property
    def stage(self) -> Stage:
        """Where the loop is."""
        return self._stage

    def enter(self, stage: Stage, *, epoch: int | None = None, steps: int | None = None) -> None:
        """Enter a stage; a new `epoch` sets the counters of the epoch back to 0."""
        self._stage = stage
        if epoch is not None and epoch != self._epoch:
            self._epoch, self._step, self._rows, self._wait_s = epoch, 0, 0, 0.0
        if steps is not None:
            self._steps = steps
        self._write()

    def step(
        self, step: int, *, rows: int = 0, wait_s: float = 0.0, loss: float | None = None
    ) -> None:
        """One more step done: `rows` and `wait_s` of this step alone; `step` counts from 1."""
        self._step, self._rows, self._wait_s = step, self._rows + rows, self._wait_s + wait_s
        if loss is not None:
            self._loss = loss
            self.saw_loss(step, loss)
        self._write()

    def saw_loss(self, step: int, loss: float) -> None:
        """Remember the first loss that is no finite number; it is written with the next step."""
        if not self._bad[0] and not math.isfinite(loss):
            self._bad = max(1, self._epoch), step, loss

    def _write(self) -> None:
        self._slot.write(
            os.getpid(), MAGIC, self._stage, self._epoch, self._step,
            self._steps, self._rows, time.monotonic(), self._wait_s, self._loss,
            *self._bad,
        )  # fmt: skip

    def close(self) -> None:
        """Unmap the file; it stays readable."""
        self._slot.close()

    def __enter__(self) -> ProgressWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def worker_path(folder: str | os.PathLike[str], pid: int) -> Path:
    """Where the worker `pid` of the child with this folder writes its progress."""
    return Path(folder) / f"worker-{pid}.bin"


class WorkerWriter:
    """A worker's side, in the child's folder."""

    def __init__(self, folder: str | os.PathLike[str], worker: int) -> None:
        self._slot = Slot(worker_path(folder, os.getpid()), _WORKER_LAYOUT)
        self._worker, self._batches = worker, 0
        self.enter(WorkerStage.STARTING)

    def enter(self, stage: WorkerStage, *, batches: int = 0) -> None:
        """Enter a stage, after `batches` more were made."""
        self._batches += batches
        self._slot.write(os.getpid(), MAGIC, stage, self._worker, self._batches, time.monotonic())


def rank_folder(folder: Path, rank: int) -> Path:
    """Where a rank writes: rank 0 is the one that the supervisor follows."""
    return folder / f"rank-{rank}" if rank else folder


class RankWriter:
    """A rank's side, in the child's folder: whether it waits for the others, or they for it.

    `IDLE` is waiting in a collective, `FETCHING` anything else.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        rank: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._slot = Slot(Path(folder) / f"rank-{rank}.bin", _RANK_LAYOUT)
        self._rank, self._collectives, self._clock = rank, 0, clock
        self._waited_s, self._since_s = 0.0, clock()
        self._stage = WorkerStage.STARTING
        self.enter(WorkerStage.STARTING)

    def enter(self, stage: WorkerStage) -> None:
        """Begin to wait, or go on."""
        now_s = self._clock()
        if self._stage is WorkerStage.IDLE:
            self._waited_s += now_s - self._since_s
        self._collectives += stage is WorkerStage.IDLE
        self._stage, self._since_s = stage, now_s
        self._slot.write(
            os.getpid(), MAGIC, stage, self._rank, self._collectives, now_s, self._waited_s
        )


def read_progress(path: str | os.PathLike[str]) -> Progress | None:
    """The newest progress, or None while there is none (no file, or not written yet)."""
    found = read_slot(path, _LAYOUT)
    if found is None:
        return None
    writes, (pid, _, stage, epoch, step, steps, rows, written_s, wait_s, loss, *bad) = found
    return Progress(
        pid=pid, stage=Stage(stage), epoch=epoch, step=step, steps=steps, rows=rows,
        writes=writes, written_s=written_s, wait_s=wait_s, loss=loss,
        bad_epoch=bad[0], bad_step=bad[1], bad_loss=bad[2],
    )  # fmt: skip


def read_workers(folder: str | os.PathLike[str]) -> list[WorkerProgress]:
    """The newest progress of all workers that the child ever started, in order of their numbers."""
    found = _read_numbered(folder, "worker-*.bin", _WORKER_LAYOUT)
    workers = [
        WorkerProgress(pid, worker, WorkerStage(stage), batches, writes, written_s)
        for writes, (pid, _, stage, worker, batches, written_s) in found
    ]
    return sorted(workers, key=lambda one: (one.worker, one.written_s))


def read_ranks(folder: str | os.PathLike[str]) -> list[RankProgress]:
    """The newest of all ranks of the child, in their order; empty where it trains alone."""
    found = _read_numbered(folder, "rank-*.bin", _RANK_LAYOUT)
    ranks = [
        RankProgress(pid, rank, WorkerStage(stage), waits, writes, written_s, waited_s)
        for writes, (pid, _, stage, rank, waits, written_s, waited_s) in found
    ]
    return sorted(ranks, key=lambda one: (one.worker, one.written_s))


def _read_numbered(
    folder: str | os.PathLike[str], pattern: str, layout: struct.Struct
) -> list[tuple[int, tuple[Any, ...]]]:
    read = (_read_whole(path, layout) for path in _found(Path(folder), pattern))
    return [found for found in read if found is not None]


def _found(folder: Path, pattern: str) -> list[Path]:
    try:
        return list(folder.glob(pattern))
    except OSError:
        return []


def _read_whole(path: Path, layout: struct.Struct) -> tuple[int, tuple[Any, ...]] | None:
    """One of many: what cannot be read is left out."""
    try:
        return read_slot(path, layout)
    except OSError:
        return None


def read_slot(
    path: str | os.PathLike[str], layout: struct.Struct
) -> tuple[int, tuple[Any, ...]] | None:
    """How often the record was written, and the newest; None if it never was."""
    for _ in range(100):
        try:
            content = Path(path).read_bytes()
        except FileNotFoundError:
            return None
        if len(content) < _SEQUENCE.size + layout.size:
            return None
        (before,) = _SEQUENCE.unpack_from(content)
        values = layout.unpack_from(content, _SEQUENCE.size)
        if before == 0:
            return None
        if before % 2 == 0 and values[1] == MAGIC:
            return before // 2, values
        time.sleep(0.0005)
    return None
