"""A memory map in which a loop notes what it spends its seconds on, and the supervisor reads it.

Standard library only, and Python 3.9: it also runs inside a script's own interpreter.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from ctrkit.core.progress import new_map


class Spending(IntEnum):
    """The activities that a loop's main thread spends its time on."""

    STARTUP = 0
    DATA_WAIT = 1
    TRANSFER = 2
    COMPUTE = 3
    OPTIMIZER = 4
    VALIDATION = 5
    CHECKPOINT = 6
    LOGGING = 7
    SHUTDOWN = 8


@dataclass(frozen=True)
class Spent:
    """One reading of how a loop has spent its time since it began.

    Attributes:
        seconds: seconds per `Spending`, without the current activity.
        doing: the current activity.
        since_s: when it began, by `time.monotonic()`, the same clock in all processes.
        rows: rows over all epochs.
        steps: steps over all epochs.
        writes: number of writes so far.
        device_bytes: device memory in use; None if unknown.
        long: the latest stretch longer than LONG_S of a single activity: which, start and end.
    """

    pid: int
    doing: Spending
    since_s: float
    seconds: tuple[float, ...]
    rows: int = 0
    steps: int = 0
    device_bytes: int | None = None
    writes: int = 0
    long: tuple[Spending, float, float] | None = None

    def until(self, now_s: float) -> tuple[float, ...]:
        """The seconds per activity, including the current one up to `now_s`."""
        open_s = max(0.0, now_s - self.since_s)
        return tuple(
            seconds + (open_s if index == self.doing else 0.0)
            for index, seconds in enumerate(self.seconds)
        )


SPENT_FILE = "spent.bin"
LONG_S = 4.0
_HEAD, _PID, _DOING, _SINCE, _ROWS, _STEPS, _DEVICE, _LONG, _FROM, _TO, _FIRST = range(11)
_TAIL = _FIRST + len(Spending)
_CELLS = struct.Struct(f"={_TAIL + 1}d")


class SpentWriter:
    """Writes how a loop spends its time into a new memory map; a write takes less than 1 µs."""

    def __init__(
        self, path: str | os.PathLike[str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._cells = memoryview(new_map(Path(path), _CELLS.size)).cast("d")
        self._clock, self._writes = clock, 0
        self.doing, self._since_s = Spending.STARTUP, clock()
        self._cells[_PID], self._cells[_DEVICE] = os.getpid(), float("nan")
        self.enter(Spending.STARTUP)

    def enter(self, doing: Spending, at_s: float | None = None) -> None:
        """Begin an activity, now or `at_s`; the time until then counts for the previous one."""
        now_s, cells = self._clock() if at_s is None else at_s, self._cells
        passed_s = now_s - self._since_s
        if passed_s < 0:  # an earlier event that is told late
            now_s, passed_s = self._since_s, 0.0
        # as `_begin`, without the call
        self._writes = newest = self._writes + 1
        cells[_TAIL] = newest
        cells[_FIRST + self.doing] += passed_s
        if passed_s > LONG_S:
            cells[_LONG], cells[_FROM], cells[_TO] = self.doing, self._since_s, now_s
        cells[_DOING], cells[_SINCE] = doing, now_s
        self.doing, self._since_s = doing, now_s
        cells[_HEAD] = newest

    def step(self, rows: int) -> None:
        """Count one more step and its rows."""
        cells = self._cells
        self._writes = newest = self._writes + 1
        cells[_TAIL] = newest
        cells[_ROWS] += rows
        cells[_STEPS] += 1
        cells[_HEAD] = newest

    def device(self, in_use_bytes: int | None) -> None:
        """Note how much device memory is in use."""
        self._begin()
        self._cells[_DEVICE] = float("nan") if in_use_bytes is None else in_use_bytes
        self._cells[_HEAD] = self._writes

    def _begin(self) -> None:
        # The tail is written first and the head last. A reader goes from head to tail: if both are
        # equal, nothing was written while it read.
        self._writes += 1
        self._cells[_TAIL] = self._writes


def read_spent(path: str | os.PathLike[str]) -> Spent | None:
    """How the loop has spent its time so far; None if there is nothing to read yet."""
    for _ in range(100):
        try:
            content = Path(path).read_bytes()
        except FileNotFoundError:
            return None
        if len(content) < _CELLS.size:
            return None
        cells = _CELLS.unpack_from(content)
        if cells[_HEAD] == 0:
            return None
        if cells[_HEAD] == cells[_TAIL]:
            known = cells[_DEVICE] == cells[_DEVICE]
            return Spent(
                pid=int(cells[_PID]), doing=Spending(int(cells[_DOING])), since_s=cells[_SINCE],
                seconds=cells[_FIRST:_TAIL], rows=int(cells[_ROWS]), steps=int(cells[_STEPS]),
                device_bytes=int(cells[_DEVICE]) if known else None, writes=int(cells[_HEAD]),
                long=(Spending(int(cells[_LONG])), cells[_FROM], cells[_TO])
                if cells[_TO] else None,
            )  # fmt: skip
        time.sleep(0.0002)
    return None
