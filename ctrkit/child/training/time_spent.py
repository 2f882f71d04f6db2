"""Tells the ledger what the main thread of a real run spends its time on.

It never synchronizes the device. On a device that computes asynchronously, a stage's time is how
long the main thread was held up in it, and an earlier stage may have caused that.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from ctrkit.child.workloads.protocol import Task
from ctrkit.core.spending import Spending, SpentWriter

_DEVICE_EVERY_S = 10.0


class TimeLedger:
    """Adds up seconds per activity, for the supervisor to read; the loop says what it begins.

    Args:
        path: the file to write, a small memory map.
        clock: returns seconds, monotonic, the same in every process.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._writer = SpentWriter(path, clock)
        self._clock, self._device_s = clock, -_DEVICE_EVERY_S
        self.enter = self._writer.enter

    def mark(self, stage: str) -> None:
        """A task's mark: the stage of this name has just ended."""
        if stage == "backward":
            self.enter(Spending.OPTIMIZER)
        elif stage == "optimizer":
            self.enter(Spending.LOGGING)

    def stepped(self, task: Task, rows: int) -> None:
        """A step is done; now and then this also reads the device's memory."""
        self._writer.step(rows)
        now_s = self._clock()
        if now_s - self._device_s >= _DEVICE_EVERY_S:
            self._device_s = now_s
            self._writer.device(task.peak_device_bytes())
