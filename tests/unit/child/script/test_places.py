"""The device on which a script computes need not be the current one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from ctrkit.child.recording.device_clock import DeviceClock, event_maker
from ctrkit.child.script.describe import place_of, place_of_optimizer


def test_the_place_of_a_loss_and_of_an_optimizer() -> None:
    meta, bare = torch.zeros((), device="meta"), torch.nn.Linear(2, 1, device="meta")
    assert str(place_of(meta)) == str(place_of([meta, 1])) == "meta"
    assert place_of("no tensor") is place_of([]) is None
    assert str(place_of_optimizer(torch.optim.SGD(bare.parameters(), lr=1.0))) == "meta"
    assert place_of_optimizer(object()) is None


class _Event:
    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing
        self.at_ms = 0.0

    def record(self, stream: _Stream) -> None:
        self.at_ms = stream.at_ms

    def elapsed_time(self, later: _Event) -> float:
        return later.at_ms - self.at_ms


class _Stream:
    at_ms = 0.0


def test_events_are_recorded_in_the_stream_of_that_device() -> None:
    streams: dict[Any, _Stream] = {None: _Stream(), "cuda:1": _Stream()}
    made_up = SimpleNamespace(cuda=SimpleNamespace(Event=_Event, current_stream=streams.get))
    clock = DeviceClock(event_maker(made_up, "cuda", "cuda:1"))
    clock.begin()
    streams[None].at_ms, streams["cuda:1"].at_ms = 9000.0, 250.0
    clock.mark()
    assert clock.read_s() == [0.25]
    assert event_maker(made_up, "mps") is None
