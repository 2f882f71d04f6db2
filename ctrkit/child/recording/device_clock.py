"""Times when the device finished each step, with CUDA events that are read later.

The host runs ahead of a GPU: its stamps tell when a step was asked for, not when it was computed.
An event is noted by the device when it gets there, and nobody waits for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class DeviceClock:
    """Marks moments in one device's queue, and measures them from a moment when it was idle.

    Args:
        make_event: makes an event with `record()` and `elapsed_time(later)` in milliseconds; None
            if the device has no events: then this clock measures nothing.
    """

    def __init__(self, make_event: Callable[[], Any] | None) -> None:
        self._make_event = make_event
        self._begin: Any = None
        self._marks: list[Any] = []

    def begin(self) -> None:
        """Count from now. The caller has just synchronized the device."""
        self._marks, self._begin = [], None
        if self._make_event is not None:
            self._begin = self._recorded()

    def mark(self) -> None:
        """Mark this moment of the queue: the host has just queued the whole step."""
        if self._begin is not None:
            self._marks.append(self._recorded())

    def read_s(self) -> list[float]:
        """Seconds from `begin` to each mark that was not read yet.

        Synchronize the device first.
        """
        marks, self._marks = self._marks, []
        return [self._begin.elapsed_time(mark) / 1e3 for mark in marks]

    def _recorded(self) -> Any:
        assert self._make_event is not None
        event = self._make_event()
        event.record()
        return event


def event_maker(torch: Any, device: str, place: Any = None) -> Callable[[], Any] | None:
    """A function that makes events of a device; None if it has none, and on MPS: they can hang.

    Args:
        torch: the module, since this one must not import it.
        device: the type of the device.
        place: the `torch.device` whose stream is marked; None: the current one.
    """
    if device != "cuda":
        return None
    return lambda: _EventOn(torch.cuda, place)


class _EventOn:
    """An event in the current stream of a device, which need not be the current device."""

    def __init__(self, cuda: Any, place: Any) -> None:
        self._cuda, self._place = cuda, place
        self.event = cuda.Event(enable_timing=True)

    def record(self) -> None:
        self.event.record(self._cuda.current_stream(self._place))

    def elapsed_time(self, later: _EventOn) -> float:
        """Milliseconds until another event."""
        return float(self.event.elapsed_time(later.event))
