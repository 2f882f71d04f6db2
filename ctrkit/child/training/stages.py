"""Times each stage of a training step: by the clock, or on CUDA by events that are read later."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import torch

from ctrkit.child.training import devices


class StageTimer(Protocol):
    """Times the stages of a step, which follow each other."""

    def begin(self) -> None:
        """A step begins."""

    def mark(self, stage: str) -> None:
        """A stage ends, and the next one begins."""

    def read(self) -> dict[str, list[float]]:
        """Seconds of each stage, a list entry per step; call it when all steps are done."""


class ClockTimer:
    """Times by the host's clock; waits for the device at each mark (nothing to do on the CPU)."""

    def __init__(self, wait: Callable[[], None]) -> None:
        self._wait = wait
        self._last_s = 0.0
        self._stages: dict[str, list[float]] = {}

    def begin(self) -> None:
        self._wait()
        self._last_s = time.perf_counter()

    def mark(self, stage: str) -> None:
        self._wait()
        now_s = time.perf_counter()
        self._stages.setdefault(stage, []).append(now_s - self._last_s)
        self._last_s = now_s

    def read(self) -> dict[str, list[float]]:
        return self._stages


class EventTimer:
    """Times by events in the device's queue, so that work overlaps as it does without timing.

    Args:
        make_event: makes an event with `record()` and `elapsed_time(later)` in milliseconds.
        wait: waits for all queued work; called once, before the events are read.
    """

    def __init__(self, make_event: Callable[[], Any], wait: Callable[[], None]) -> None:
        self._make_event, self._wait = make_event, wait
        self._last: Any = None
        self._spans: list[tuple[str, Any, Any]] = []

    def begin(self) -> None:
        self._last = self._recorded()

    def mark(self, stage: str) -> None:
        event = self._recorded()
        self._spans.append((stage, self._last, event))
        self._last = event

    def read(self) -> dict[str, list[float]]:
        self._wait()
        stages: dict[str, list[float]] = {}
        for stage, began, ended in self._spans:
            stages.setdefault(stage, []).append(began.elapsed_time(ended) / 1e3)
        return stages

    def _recorded(self) -> Any:
        event = self._make_event()
        event.record()
        return event


def stage_timer(device: str) -> StageTimer:
    """The timer of a device: events on CUDA, the clock elsewhere (events can hang on MPS)."""
    wait = partial(devices.synchronize, device)
    if device == "cuda":
        return EventTimer(partial(torch.cuda.Event, enable_timing=True), wait)
    return ClockTimer(wait)
