"""The progress file: a small memory map that the loop writes and the supervisor reads.

There is no heartbeat thread: only the loop itself writes here, so a silent file is a silent loop.
A write costs about a microsecond and makes no system call.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from types import TracebackType

_MAGIC = 0x63747231
_LAYOUT = struct.Struct("<qIIqqqqdddd")
_SEQUENCE = struct.Struct("<Q")
_SIZE = _SEQUENCE.size + _LAYOUT.size


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

    @property
    def label(self) -> str:
        """The stage as people read it: `first batch`."""
        return self.name.lower().replace("_", " ")


@dataclass(frozen=True)
class Progress:
    """One reading of the file.

    `step` counts within the epoch, `steps` is the epoch's length (0 if unknown), `rows` and
    `wait_s` add up over the epoch; `written_s` is the writer's `time.monotonic()`; `writes` grows
    with each write. `loss` is NaN where there is none.
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


class ProgressWriter:
    """The loop's side; `path` is created. Usable as a context manager."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        Path(path).write_bytes(bytes(_SIZE))
        with open(path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), _SIZE)
        self._sequence = 0
        self._stage, self._epoch, self._steps = Stage.IMPORT, 0, 0
        self._step, self._rows, self._wait_s, self._loss = 0, 0, 0.0, float("nan")
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
        self._write()

    def _write(self) -> None:
        # A reader that sees an odd or a changed sequence number reads again.
        self._sequence += 2
        _SEQUENCE.pack_into(self._map, 0, self._sequence - 1)
        _LAYOUT.pack_into(
            self._map, _SEQUENCE.size, os.getpid(), _MAGIC, self._stage, self._epoch, self._step,
            self._steps, self._rows, time.monotonic(), self._wait_s, self._loss, 0.0,
        )  # fmt: skip
        _SEQUENCE.pack_into(self._map, 0, self._sequence)

    def close(self) -> None:
        """Unmap the file; it stays readable."""
        self._map.close()

    def __enter__(self) -> ProgressWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def read_progress(path: str | os.PathLike[str]) -> Progress | None:
    """The newest progress, or None while there is none (no file, or not written yet)."""
    for _ in range(100):
        try:
            content = Path(path).read_bytes()
        except FileNotFoundError:
            return None
        if len(content) < _SIZE:
            return None
        (before,) = _SEQUENCE.unpack_from(content)
        values = _LAYOUT.unpack_from(content, _SEQUENCE.size)
        if before == 0:
            return None
        if before % 2 == 0 and values[1] == _MAGIC:
            pid, _, stage, epoch, step, steps, rows, written_s, wait_s, loss, _ = values
            return Progress(
                pid=pid, stage=Stage(stage), epoch=epoch, step=step, steps=steps, rows=rows,
                writes=before // 2, written_s=written_s, wait_s=wait_s, loss=loss,
            )  # fmt: skip
        time.sleep(0.0005)
    return None
