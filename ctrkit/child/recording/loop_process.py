"""What a recorder asks of the process that it runs in, where only the loop can tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ctrkit.child.recording.device_clock import DeviceClock


class LoopProcess:
    """What a recorder asks of the process it runs in; these are the plainest answers.

    A loop overrides what it can tell better.
    """

    def synchronize(self) -> None:
        """Wait for the device, where one is used."""

    def device_clock(self) -> DeviceClock:
        """The clock of the device, where one is used."""
        return DeviceClock(None)

    def cpu_s(self) -> float | None:
        """CPU seconds of the process and its workers so far, None where nobody knows."""
        return None

    def counters(self) -> Mapping[str, float]:
        """What the process and its workers have read so far, empty where nobody knows."""
        return {}

    def files_in_use(self) -> Mapping[str, Any]:
        """The files that they read just now, and their threads; empty where nobody knows."""
        return {}

    def all_agree(self, enough: bool) -> bool:
        """Whether all processes that train together have had enough."""
        return enough

    def is_warm(self) -> bool:
        """Whether the throughput window may begin once its warm-up steps are done."""
        return True

    def at_window_end(self) -> Mapping[str, Any]:
        """Further fields of the measurement, asked for once the throughput window is over."""
        return {}
