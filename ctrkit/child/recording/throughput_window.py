"""The window that a trial is ranked and projected by: whole groups of steps, and what they used.

A group is the batches of one optimizer step. A group that something else interrupts, such as a
validation, is left out together with its time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ctrkit.child.recording.family_reads import between
from ctrkit.child.recording.loop_process import LoopProcess
from ctrkit.child.recording.step_stamps import INTERRUPTED, THROUGHPUT

#: Files in use are looked at (a few milliseconds) if this share of the window waits for data.
_WAITING = 0.3


class ThroughputWindow:
    """The window so far; it begins when this object is made.

    Args:
        around: the process whose CPU time and reads to count.
        now_s: returns the seconds since the launch.
    """

    def __init__(self, around: LoopProcess, now_s: Callable[[], float]) -> None:
        self._around = around
        self._counters = dict(around.counters())
        self._cpu_s, self.began_s = around.cpu_s(), now_s()
        self.steps = self._rows = 0
        self._lost_s = 0.0
        self._begin_group(self.began_s)

    def _begin_group(self, at_s: float) -> None:
        self._group_s, self._group_steps, self._group_rows = at_s, 0, 0
        self._interrupted = False

    def interrupt(self) -> None:
        """The current step is interrupted, so its group does not count."""
        self._interrupted = True

    def count(self, rows: int) -> int:
        """Count one more step; returns the number of steps in the current group."""
        self._group_steps += 1
        self._group_rows += rows
        return self._group_steps

    def close_group(self, at_s: float, stamps: Any) -> None:
        """Count the group that ends here, or discard it if it was interrupted."""
        if self._interrupted:
            self._lost_s += at_s - self._group_s
            if self._group_steps:
                windows = stamps.window
                windows[-self._group_steps :] = [INTERRUPTED] * self._group_steps
        else:
            self.steps += self._group_steps
            self._rows += self._group_rows
        self._begin_group(at_s)

    def close_last_group(self, at_s: float, stamps: Any, group: int) -> None:
        """Close the epoch's last group, which may have fewer steps than `group`.

        A loader that ends may also end its workers, which is no part of a step.
        """
        self._interrupted = self._interrupted or (self._group_steps < group and self.steps > 0)
        self.close_group(at_s, stamps)

    def lasted_s(self, at_s: float) -> float:
        """Seconds since the window began, without the groups that are left out."""
        return at_s - self.began_s - self._lost_s

    def measured(self, end_s: float, stamps: Any) -> dict[str, Any]:
        """The measurement's fields, when the window is over."""
        used_s = self._around.cpu_s()
        cpu_s = None
        if used_s is not None and self._cpu_s is not None:
            cpu_s = max(0.0, used_s - self._cpu_s)
        reads = between(self._counters, self._around.counters())
        waits = _waited_s(stamps) >= _WAITING * (end_s - self.began_s)
        return {
            "throughput_s": self.lasted_s(end_s),
            "throughput_steps": self.steps,
            "throughput_rows": self._rows,
            "cpu_s": cpu_s,
            "reads": reads,
            "in_use": dict(self._around.files_in_use()) if waits else {},
        }


def _waited_s(stamps: Any) -> float:
    """Seconds for which the steps of the throughput window waited for data."""
    columns = zip(stamps.window, stamps.asked_s, stamps.delivered_s)
    return float(sum(got_s - asked_s for window, asked_s, got_s in columns
                     if window == THROUGHPUT))  # fmt: skip
