"""The progress file: a small memory map that the child writes and the supervisor reads.

There is no heartbeat thread. Only the loop itself writes here, so a file that does not change means
a loop that does not move. DataLoader workers write their own files, which show who is busy while
the loop waits. A write takes about a microsecond and makes no system call.

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
_SEQUENCE = struct.Struct("=Q")
_LAYOUT = struct.Struct("<qIIqqqqdddqqd")
_WORKER_LAYOUT = struct.Struct("<qIIqqd")
_RANK_LAYOUT = struct.Struct("<qIIqqdd")


class Stage(IntEnum):
    """The stage of a child; every change of stage is progress."""

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
        """The stage in words, such as `first batch`."""
        return self.name.lower().replace("_", " ")


@dataclass(frozen=True)
class Progress:
    """One reading of the progress file.

    Attributes:
        stage: the child's stage.
        step: steps done of the epoch.
        steps: length of the epoch; 0 if unknown.
        rows: rows of the epoch so far.
        wait_s: seconds of the epoch that the loop waited for data.
        written_s: the writer's `time.monotonic()`.
        writes: number of writes so far.
        loss: the latest training loss; NaN if there is none.
        bad_loss: the first loss that was NaN or infinite.
        bad_epoch: the epoch of `bad_loss`; 0 while there was none.
        bad_step: the step of `bad_loss`.
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
    """The stage of a DataLoader worker: starting (with `worker_init_fn`), fetching, or idle."""

    STARTING = 0
    FETCHING = 1
    IDLE = 2


@dataclass(frozen=True)
class WorkerProgress:
    """One reading of a worker's file: its number, and how many batches it has made."""

    pid: int
    worker: int
    stage: WorkerStage
    batches: int
    writes: int
    written_s: float


@dataclass(frozen=True)
class RankProgress(WorkerProgress):
    """One reading of a rank's file.

    Attributes:
        worker: number of the rank.
        batches: how often it has waited for others.
        waited_s: seconds that it has waited, without a wait that still lasts.
    """

    waited_s: float = 0.0


def new_map(path: Path, size: int) -> mmap.mmap:
    """Map a new file of zeros. An old file of this name stays intact for whoever has it open."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_bytes(bytes(size))
    with open(aside, "r+b") as file:
        new = mmap.mmap(file.fileno(), size)
    os.replace(aside, path)
    return new


class Slot:
    """A record in its own memory map.

    A reader sees it whole, or notices that it is being written.
    """

    def __init__(self, path: str | os.PathLike[str], layout: struct.Struct) -> None:
        self._map = new_map(Path(path), _SEQUENCE.size + layout.size)
        self._pack_into, self._sequence = layout.pack_into, 0
        self._head = memoryview(self._map)[: _SEQUENCE.size].cast("Q")

    def write(self, *values: float) -> None:
        # An odd or changed sequence number tells the reader to read again.
        self._sequence = newest = self._sequence + 2
        self._head[0] = newest - 1
        self._pack_into(self._map, _SEQUENCE.size, *values)
        self._head[0] = newest

    def close(self) -> None:
        self._head.release()
        self._map.close()


class ProgressWriter:
    """Writes the progress of a loop into a new file; also a context manager."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._slot = Slot(path, _LAYOUT)
        self._pid = os.getpid()  # a system call is too dear for each step
        #: where the loop is; only `enter` and `step` change it
        self.stage = Stage.IMPORT
        self._epoch = self._steps = 0
        self._step, self._rows, self._wait_s, self._loss = 0, 0, 0.0, float("nan")
        self._bad: tuple[int, int, float] = (0, 0, 0.0)
        self._write()

    def enter(self, stage: Stage, *, epoch: int | None = None, steps: int | None = None) -> None:
        """Enter a stage; a new `epoch` resets the epoch's counters."""
        self.stage = stage
        if epoch is not None and epoch != self._epoch:
            self._epoch, self._step, self._rows, self._wait_s = epoch, 0, 0, 0.0
        if steps is not None:
            self._steps = steps
        self._write()

    def step(
        self,
        step: int,
        *,
        rows: int = 0,
        wait_s: float = 0.0,
        loss: float | None = None,
        stage: Stage | None = None,
    ) -> None:
        """Count one more step, with its own `rows` and `wait_s`; `step` counts from 1.

        With a `stage`, enter that one, too.
        """
        self._step, self._rows, self._wait_s = step, self._rows + rows, self._wait_s + wait_s
        if stage is not None:
            self.stage = stage
        if loss is not None:
            self._loss = loss
            self.saw_loss(step, loss)
        # as `_write`, without a call that each step would pay for
        self._slot.write(
            self._pid, MAGIC, self.stage, self._epoch, step, self._steps, self._rows,
            time.monotonic(), self._wait_s, self._loss, *self._bad,
        )  # fmt: skip

    def saw_loss(self, step: int, loss: float) -> None:
        """Remember the first loss that is not finite; the next step writes it."""
        if not self._bad[0] and not math.isfinite(loss):
            self._bad = max(1, self._epoch), step, loss

    def _write(self) -> None:
        self._slot.write(
            self._pid, MAGIC, self.stage, self._epoch, self._step,
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
    """The progress file of the worker `pid`, in the child's folder."""
    return Path(folder) / f"worker-{pid}.bin"


class WorkerWriter:
    """Writes a worker's progress."""

    def __init__(self, folder: str | os.PathLike[str], worker: int) -> None:
        self._slot = Slot(worker_path(folder, os.getpid()), _WORKER_LAYOUT)
        self._worker, self._batches = worker, 0
        self.enter(WorkerStage.STARTING)

    def enter(self, stage: WorkerStage, *, batches: int = 0) -> None:
        """Enter a stage after making `batches` more batches."""
        self._batches += batches
        self._slot.write(os.getpid(), MAGIC, stage, self._worker, self._batches, time.monotonic())


def rank_folder(folder: Path, rank: int) -> Path:
    """The folder of a rank; rank 0 uses the child's own, which the supervisor follows."""
    return folder / f"rank-{rank}" if rank else folder


class RankWriter:
    """Writes whether a rank waits for the others (`IDLE`, in a collective) or not (`FETCHING`)."""

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
        """Enter `IDLE` to wait, or `FETCHING` to continue."""
        now_s = self._clock()
        if self._stage is WorkerStage.IDLE:
            self._waited_s += now_s - self._since_s
        self._collectives += stage is WorkerStage.IDLE
        self._stage, self._since_s = stage, now_s
        self._slot.write(
            os.getpid(), MAGIC, stage, self._rank, self._collectives, now_s, self._waited_s
        )


def read_progress(path: str | os.PathLike[str]) -> Progress | None:
    """The latest progress; None without a file, or before the first write."""
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
    """The latest progress of all workers that the child ever started, sorted by number."""
    found = _read_numbered(folder, "worker-*.bin", _WORKER_LAYOUT)
    workers = [
        WorkerProgress(pid, worker, WorkerStage(stage), batches, writes, written_s)
        for writes, (pid, _, stage, worker, batches, written_s) in found
    ]
    return sorted(workers, key=lambda one: (one.worker, one.written_s))


def read_ranks(folder: str | os.PathLike[str]) -> list[RankProgress]:
    """The latest progress of all ranks, in order; empty if the child trains alone."""
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
    """As `read_slot`; None also if the file cannot be read."""
    try:
        return read_slot(path, layout)
    except OSError:
        return None


def read_slot(
    path: str | os.PathLike[str], layout: struct.Struct
) -> tuple[int, tuple[Any, ...]] | None:
    """The number of writes, and the latest record; None if it was never written."""
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
