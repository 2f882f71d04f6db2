"""Stages of a step: by a clock that waits, and by events that do not."""

from __future__ import annotations

import pytest
import torch

from ctrkit.child.training import stages
from ctrkit.child.training.stages import ClockTimer, EventTimer, stage_timer


class Device:
    """A queue of work: events get their time when it is worked off, as those of CUDA do."""

    def __init__(self) -> None:
        self.now_ms, self.queue, self.waits = 0.0, [], 0

    def work(self, ms: float) -> None:
        self.queue.append(ms)

    def wait(self) -> None:
        self.waits += 1
        for entry in self.queue:
            if isinstance(entry, Event):
                entry.at_ms = self.now_ms
            else:
                self.now_ms += entry
        self.queue.clear()


class Event:
    def __init__(self, device: Device) -> None:
        self.device, self.at_ms = device, None

    def record(self) -> None:
        self.device.queue.append(self)

    def elapsed_time(self, later: Event) -> float:
        assert None not in (self.at_ms, later.at_ms), "read before it happened"
        return later.at_ms - self.at_ms


def test_events_are_read_once_all_steps_are_done():
    device = Device()
    timer = EventTimer(lambda: Event(device), device.wait)
    for forward_ms in (10.0, 30.0):
        device.work(500.0)  # of before the step
        timer.begin()
        device.work(forward_ms)
        timer.mark("forward")
        device.work(2.0)
        timer.mark("backward")
    assert device.waits == 0, "nobody waited while the steps were made"
    assert timer.read() == {
        "forward": pytest.approx([0.01, 0.03]),
        "backward": pytest.approx([0.002, 0.002]),
    }
    assert device.waits == 1


def test_the_clock_waits_for_the_device_at_each_mark(monkeypatch):
    device = Device()
    monkeypatch.setattr(stages.time, "perf_counter", lambda: device.now_ms / 1e3)
    timer = ClockTimer(device.wait)
    device.work(500.0)
    timer.begin()
    device.work(10.0)
    timer.mark("forward")
    timer.mark("backward")
    assert timer.read() == {"forward": pytest.approx([0.01]), "backward": [0.0]}
    assert device.waits == 3


def test_each_device_has_the_timer_that_is_safe_there():
    assert isinstance(stage_timer("cpu"), ClockTimer)
    assert isinstance(stage_timer("mps"), ClockTimer), "events can hang there"
    assert isinstance(stage_timer("cuda"), EventTimer)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no cuda here")
def test_events_of_cuda_say_what_a_product_takes():
    timer = stage_timer("cuda")
    matrix = torch.ones(2048, 2048, device="cuda")
    timer.begin()
    for _ in range(20):
        matrix @ matrix
    timer.mark("forward")
    timer.mark("backward")
    found = timer.read()
    assert found["forward"][0] > found["backward"][0] >= 0
