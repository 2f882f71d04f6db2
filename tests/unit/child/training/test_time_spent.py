"""What the loop counts: seconds per activity, with a clock that the test moves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ctrkit.child.training import time_spent as ledger
from ctrkit.child.training.loop import run_training
from ctrkit.child.training.time_spent import TimeLedger
from ctrkit.child.workloads.protocol import Task, Workload
from ctrkit.core.config import RunSizes, TrainPlan, make_cell
from ctrkit.core.progress import ProgressWriter
from ctrkit.core.spending import SPENT_FILE, Spending, read_spent

CELL = make_cell(batch_size=4, threads=1)


class Clock:
    def __init__(self) -> None:
        self.now_s = 50.0

    def __call__(self) -> float:
        return self.now_s

    def after(self, seconds: float) -> None:
        self.now_s += seconds


def test_time_goes_to_what_was_done_before_the_turn(tmp_path: Path) -> None:
    clock = Clock()
    counted = TimeLedger(tmp_path / SPENT_FILE, clock)
    clock.after(2.0)
    counted.enter(Spending.COMPUTE)
    clock.after(3.0)
    counted.mark("forward")  # both passes are one
    clock.after(4.0)
    counted.mark("backward")
    clock.after(0.5)
    counted.mark("optimizer")
    found = read_spent(tmp_path / SPENT_FILE)
    assert found is not None
    assert (found.doing, found.since_s) == (Spending.LOGGING, 59.5)
    assert found.seconds == (2.0, 0.0, 0.0, 7.0, 0.5, 0.0, 0.0, 0.0, 0.0)
    assert found.until(60.0) == (2.0, 0.0, 0.0, 7.0, 0.5, 0.0, 0.0, 0.5, 0.0)
    assert found.until(10.0) == found.seconds
    assert found.long == (Spending.COMPUTE, 52.0, 59.0)
    clock.after(9.0)
    counted.enter(Spending.DATA_WAIT)
    found = read_spent(tmp_path / SPENT_FILE)
    assert found is not None
    assert found.long == (Spending.LOGGING, 59.5, 68.5)


class Slow(Task):
    """Each call takes a known time."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.looks = clock, 0

    def transfer(self, batch):
        self.clock.after(0.25)
        return batch

    def train_step(self, batch, mark):
        self.clock.after(3.0)
        mark("forward")
        self.clock.after(5.0)
        mark("backward")
        self.clock.after(1.0)
        mark("optimizer")

    def validation_step(self, batch):
        self.clock.after(0.75)

    def recent_loss(self):
        self.clock.after(0.125)
        return 1.0

    def metrics(self):
        self.clock.after(10.0)
        return {}

    def state_dict(self):
        self.clock.after(20.0)
        return {}

    def peak_device_bytes(self):
        self.looks += 1
        return 1000 * self.looks


class Loader:
    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def set_epoch(self, epoch, first_batch=0):
        self.clock.after(40.0)

    def __iter__(self):
        for rows in (4, 4, 2):
            self.clock.after(0.5)
            yield torch.zeros(rows)

    def close(self):
        self.clock.after(100.0)


class Work(Workload):
    def __init__(self, clock: Clock) -> None:
        self.clock, self.task = clock, Slow(clock)

    def sizes(self, batch_size):
        self.clock.after(7.0)
        return RunSizes(epochs=2, train_batches=3)

    def train_loader(self, cell):
        return Loader(self.clock)

    def validation_loader(self, cell):
        return Loader(self.clock)

    def make_task(self, cell):
        return self.task


def test_every_second_of_the_loop_has_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(
        "ctrkit.child.training.epoch_loop.TimeLedger", lambda path: TimeLedger(path, clock)
    )
    work = Work(clock)
    plan = TrainPlan(run_folder=str(tmp_path), epochs=2)
    with ProgressWriter(tmp_path / "progress.bin") as progress:
        run_training(work, CELL, plan, progress, stop_requested=lambda: False)
    found = read_spent(tmp_path / SPENT_FILE)
    assert found is not None
    spent = dict(zip(Spending, found.until(clock()), strict=True))
    assert spent == {
        Spending.STARTUP: 7.0 + 20.0,  # its sizes, and a look at whether its state can be saved
        Spending.DATA_WAIT: 2 * (40.0 + 3 * 0.5),
        Spending.TRANSFER: 6 * 0.25,
        Spending.COMPUTE: 6 * 8.0,
        Spending.OPTIMIZER: 6 * 1.0,
        # its loader, transfers, steps and the metrics of the epoch
        Spending.VALIDATION: 2 * (40.0 + 3 * (0.5 + 0.25 + 0.75) + 10.0),
        Spending.CHECKPOINT: 2 * 20.0,
        Spending.LOGGING: 6 * 0.125,
        Spending.SHUTDOWN: 2 * 100.0,
    }
    assert sum(spent.values()) == clock() - 50.0
    assert (found.rows, found.steps) == (20, 6)


def test_the_devices_memory_is_looked_at_now_and_then(tmp_path: Path) -> None:
    clock = Clock()
    counted, task = TimeLedger(tmp_path / SPENT_FILE, clock), Slow(clock)
    first = read_spent(tmp_path / SPENT_FILE)
    assert first is not None
    assert first.device_bytes is None
    for _ in range(5):
        counted.stepped(task, rows=3)
        clock.after(ledger._DEVICE_EVERY_S / 4)
    found = read_spent(tmp_path / SPENT_FILE)
    assert found is not None
    assert (found.rows, found.steps, found.device_bytes, task.looks) == (15, 5, 2000, 2)
