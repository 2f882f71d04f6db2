"""Times when the device finished each step, with CUDA events that are read later.

The host runs ahead of a GPU: its stamps tell when a step was asked for, not when it was computed.
An event is noted by the device when it gets there, and nobody waits for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class DeviceClock:
    """The moments of one device's queue, from a moment at which the device had nothing to do.

    Args:
        make_event: an event with `record()` and `elapsed_time(later)` in milliseconds; None where
            the device has none: then there are no moments.
    """

    def __init__(self, make_event: Callable[[], Any] | None) -> None:
        self._make_event = make_event
        self._begin: Any = None
        self._marks: list[Any] = []

    def begin(self) -> None:
        """The device was just waited for: count from now."""
        self._marks, self._begin = [], None
        if self._make_event is not None:
            self._begin = self._recorded()

    def mark(self) -> None:
        """All calls of a step were made."""
        if self._begin is not None:
            self._marks.append(self._recorded())

    def read_s(self) -> list[float]:
        """Seconds from the beginning to each mark that was not read yet.

        The device must have been waited for.
        """
        marks, self._marks = self._marks, []
        return [self._begin.elapsed_time(mark) / 1e3 for mark in marks]

    def _recorded(self) -> Any:
        assert self._make_event is not None
        event = self._make_event()
        event.record()
        return event


def event_maker(torch: Any, device: str) -> Callable[[], Any] | None:
    """What makes the events of a device; None where there are none, or, on MPS, they can hang.

    `torch` is handed in, since nobody may import it here.
    """
    if device != "cuda":
        return None
    return lambda: torch.cuda.Event(enable_timing=True)
