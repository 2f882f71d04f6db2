"""The recorder of a training loop's events, fed by hand with a fake clock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ctrkit.child.recording.device_clock import DeviceClock
from ctrkit.child.recording.loop_process import LoopProcess
from ctrkit.child.recording.recorder import Recorder
from ctrkit.core.config import WindowPlan
from ctrkit.core.progress import ProgressWriter, Stage


class Loop:
    """A loop whose steps take what the test says."""

    def __init__(self, folder: Path, **plan: Any) -> None:
        self.now_s = 0.0
        self.progress = ProgressWriter(folder / "progress.bin")
        plan = {"window_s": 1.0, "min_steps": 3, "max_steps": 100} | plan
        self.saves = 0
        self.recorder = Recorder(
            "full",
            WindowPlan(**plan),
            self.progress,
            lambda: self.now_s,
            self._save,
            LoopProcess(),
        )

    def _save(self, recorder: Recorder) -> None:
        self.saves += 1

    def step(self, wait_s: float = 0.1, busy_s: float = 0.4, interrupted: bool = False) -> None:
        asked_s, self.now_s = self.now_s, self.now_s + wait_s
        self.recorder.delivered(asked_s, self.now_s, {})
        self.now_s += busy_s
        if interrupted:
            self.recorder.interrupted()
        self.recorder.step_done(self.now_s, rows=8)


def test_a_window_is_over_once_it_has_its_time_and_its_steps(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    loop.recorder.begin_epoch(1, 100)
    while loop.recorder.wants_step:
        loop.step()
    fields = loop.recorder.measurement()
    assert fields["throughput_steps"] == 3
    assert fields["throughput_s"] == pytest.approx(1.5)
    assert fields["throughput_rows"] == 24
    assert fields["first_batch_s"] == pytest.approx(0.1)
    assert fields["stamps"]["window"] == ["warmup"] + ["throughput"] * 3


def test_windows_are_whole_groups(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    loop.recorder.group = 4
    loop.recorder.begin_epoch(1, 100)
    while loop.recorder.wants_step:
        loop.step()
    assert loop.recorder.fields["throughput_steps"] == 4


def test_a_group_in_which_something_came_in_between_is_left_out(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    loop.recorder.group = 2
    loop.recorder.begin_epoch(1, 100)
    loop.step()
    loop.step(busy_s=9.9, interrupted=True)
    while loop.recorder.wants_step:
        loop.step()
    fields = loop.recorder.measurement()
    assert fields["throughput_steps"] == 4
    assert fields["throughput_s"] == pytest.approx(4 * 0.5)
    assert fields["stamps"]["window"] == ["warmup"] + ["interrupted"] * 2 + ["throughput"] * 4


class _MadeUpDevice(LoopProcess):
    """A made-up device: no GPU takes part. It works off its queue when somebody waits for it."""

    def __init__(self) -> None:
        self.now_ms, self.queue, self.waits = 0.0, list[Any](), 0

    def device_clock(self) -> DeviceClock:
        return DeviceClock(lambda: _Event(self))

    def synchronize(self) -> None:
        self.waits += 1
        for entry in self.queue:
            if isinstance(entry, _Event):
                entry.at_ms = self.now_ms
            else:
                self.now_ms += entry
        self.queue.clear()


class _Event:
    def __init__(self, device: _MadeUpDevice) -> None:
        self.device, self.at_ms = device, float("nan")

    def record(self) -> None:
        self.device.queue.append(self)

    def elapsed_time(self, later: _Event) -> float:
        return later.at_ms - self.at_ms


def test_an_epoch_ends_when_the_device_has_done_its_last_step(tmp_path: Path) -> None:
    """The loop asks for one more batch while the device still works on those before."""
    loop, device = Loop(tmp_path, max_steps=99, window_s=99), _MadeUpDevice()
    loop.recorder._around = device
    loop.recorder.begin_epoch(1, 4)
    for _ in range(4):
        device.queue.append(100.0)
        loop.step(wait_s=0.0, busy_s=0.001)
    asked_s = loop.now_s
    loop.recorder.epoch_ended(asked_s, asked_s)
    fields = loop.recorder.measurement()
    done_s = fields["stamps"]["device_done_s"][-1]
    assert done_s > asked_s + 0.2
    assert fields["throughput_s"] == pytest.approx(0.3, rel=0.02)
    assert fields["epoch_s"] > 0.3


def test_a_device_stamps_its_steps_while_the_host_runs_ahead(tmp_path: Path) -> None:
    loop, device = Loop(tmp_path, max_steps=4, window_s=99), _MadeUpDevice()
    loop.recorder._around = device

    def step(ms: float) -> None:
        device.queue.append(ms)
        loop.step(wait_s=0.0, busy_s=0.001)  # the host only asks for it

    loop.recorder.begin_epoch(1, 100)
    for ms in (500.0, 10.0, 30.0, 20.0, 40.0):
        step(ms)
    assert not loop.recorder.wants_step
    assert device.waits == 2  # at both ends of the window, and never within
    loop.recorder.looks_into_second = False
    loop.recorder.begin_epoch(2, 100)
    while loop.recorder.wants_step:
        step(50.0)
    stamps = loop.recorder.measurement()["stamps"]
    on_device = stamps["device_done_s"]
    assert on_device[0] is None  # warm-up
    began_s = stamps["done_s"][0]  # when the window began
    assert on_device[1:5] == pytest.approx([began_s + s for s in (0.01, 0.04, 0.06, 0.10)])
    assert on_device[5:] == pytest.approx([began_s + 0.15, began_s + 0.2])
    assert stamps["done_s"][4] - began_s == pytest.approx(0.004)  # kept beside


def test_an_epoch_that_ends_ends_the_window(tmp_path: Path) -> None:
    loop = Loop(tmp_path, window_s=60)
    loop.recorder.begin_epoch(1, None)
    for _ in range(5):
        loop.step()
    loop.recorder.epoch_ended(loop.now_s, loop.now_s + 3)
    fields = loop.recorder.measurement()
    assert not loop.recorder.wants_step
    assert (fields["epoch_batches"], fields["epoch_rows"]) == (5, 40)
    assert fields["epoch_s"] == pytest.approx(5 * 0.5 + 3)
    assert fields["throughput_steps"] == 4
    assert fields["throughput_s"] == pytest.approx(4 * 0.5)


def test_the_second_epoch_is_its_boundary(tmp_path: Path) -> None:
    loop = Loop(tmp_path, boundary_steps=2)
    loop.recorder.begin_epoch(1, 2)
    loop.step()
    loop.step()
    loop.recorder.epoch_ended(loop.now_s, loop.now_s)
    loop.now_s += 1
    loop.recorder.begin_epoch(2, 2)
    loop.step(wait_s=0.7)
    assert loop.recorder.wants_step
    loop.step()
    assert not loop.recorder.wants_step
    assert loop.recorder.fields["restart_s"] == pytest.approx(0.7)
    assert loop.recorder.stamps.window == ["warmup", "throughput", "boundary", "boundary"]
    assert loop.progress.stage is Stage.STEP


def test_an_epoch_of_one_batch_has_no_warmup(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    loop.recorder.begin_epoch(1, 1)
    loop.step()
    loop.recorder.epoch_ended(loop.now_s, loop.now_s)
    assert loop.recorder.fields["throughput_steps"] == 1


def test_a_slow_step_is_saved_at_once_since_a_deadline_may_cut_the_trial(tmp_path: Path) -> None:
    loop = Loop(tmp_path)
    loop.recorder.begin_epoch(1, 100)
    loop.step()
    saves = loop.saves
    loop.step(busy_s=0.2)
    assert loop.saves == saves
    loop.step(busy_s=30.0)
    assert loop.saves > saves
