"""The questions that a recorder asks its process, which only the loop can answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ctrkit.child.recording.device_clock import DeviceClock


class LoopProcess:
    """A recorder's questions to the process that it runs in, with answers that fit any loop.

    A loop overrides what it can tell better.
    """

    def synchronize(self) -> None:
        """Wait for the device, if the loop uses one."""

    def device_clock(self) -> DeviceClock:
        """The clock of the device; one that measures nothing if the device has no events."""
        return DeviceClock(None)

    def cpu_s(self) -> float | None:
        """CPU seconds of the process and its workers so far; None if unknown."""
        return None

    def counters(self) -> Mapping[str, float]:
        """What the process and its workers have read so far; empty if unknown."""
        return {}

    def files_in_use(self) -> Mapping[str, Any]:
        """The files that they read at the moment, and their threads; empty if unknown."""
        return {}

    def all_agree(self, enough: bool) -> bool:
        """Whether all ranks have measured enough."""
        return enough

    def is_warm(self) -> bool:
        """Whether the throughput window may begin when the warm-up steps are done."""
        return True

    def at_window_end(self) -> Mapping[str, Any]:
        """More fields for the measurement, asked for when the throughput window ends."""
        return {}
