"""A trial of a script whose device works on what the host has queued."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ctrkit.child.script.trial_watch import TrialWatch


class Device:
    """A clock, and a device that needs so long for what was queued."""

    def __init__(self, queued_s: float) -> None:
        self.now_s, self.queued_s = 100.0, queued_s

    def synchronize(self, place: object = "the only one") -> None:
        assert place in ("the loss's", "the only one"), "the current device need not be the loss's"
        self.now_s += self.queued_s


class Watch(TrialWatch):
    """In the middle of a validation, whose first batch has arrived at 100 s."""

    def __init__(self, name: str, device: Device) -> None:
        torch = SimpleNamespace(**{name: device})
        self.observer: Any = SimpleNamespace(
            device=name, place="the loss's", torch=torch, clock=lambda: device.now_s, train=None
        )
        self._validating_since, self._validated, self._other_asked_s = 99.0, 1, 100.0
        self._other_open = None
        self.told: list[float] = []

    def validation_batch(self, number: int, seconds: float) -> None:
        self.told.append(seconds)


@pytest.mark.parametrize(
    ("name", "pin_memory", "pinned"),
    [("cuda", True, True), ("cuda", False, False), ("cpu", True, False)],
)
def test_a_batch_that_is_served_again_is_pinned_as_its_loader_pins_it(
    name: str, pin_memory: bool, pinned: bool
) -> None:
    pins = SimpleNamespace(pin_memory=lambda batch: ("pinned", batch))
    watch = Watch(name, Device(0.0))
    watch.observer.torch.utils = SimpleNamespace(
        data=SimpleNamespace(_utils=SimpleNamespace(pin_memory=pins))
    )
    seen: Any = SimpleNamespace(loader=lambda: SimpleNamespace(pin_memory=pin_memory))
    assert watch._pinned(seen, "batch") == (("pinned", "batch") if pinned else "batch")


@pytest.mark.parametrize(("name", "told_s"), [("cuda", 2.5), ("mps", 2.5), ("cpu", 0.5)])
def test_a_validation_batch_takes_as_long_as_the_device_needs_for_it(
    name: str, told_s: float
) -> None:
    device = Device(queued_s=2.0)
    watch, seen = Watch(name, device), SimpleNamespace()
    device.now_s += 0.5  # the host has queued its forward pass
    watch._end_validation_batch(seen, device.now_s)  # type: ignore[arg-type]
    assert watch.told == [told_s]
    assert watch._other_asked_s == 100.0 + told_s  # the next batch is asked for after that
