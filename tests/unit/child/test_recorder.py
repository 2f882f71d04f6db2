"""The recorder of a training loop's events, fed by hand with a clock of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ctrkit.child.recorder import LoopProcess, Recorder
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
