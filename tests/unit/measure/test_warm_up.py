"""Slow first steps of a run are found from the steps, however many there are."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ctrkit.core.child_records import Measurement, Stamps
from ctrkit.core.config import RunSizes
from ctrkit.measure.projection import project
from ctrkit.measure.steps import mean_step_s
from ctrkit.measure.warm_up import without_warm_up


def launch(steps_s, *, warmup=1, second=(), **fields) -> Measurement:
    """A launch of steps without any wait; the first `warmup` are before its window."""
    columns: dict[str, list] = {name: [] for name in ("epoch", "step", "window", "done_s", "asked")}
    now = 0.0
    for epoch, steps in ((1, steps_s), (2, second)):
        for number, step_s in enumerate(steps, start=1):
            timed = "warmup" if number <= warmup else "throughput"
            columns["epoch"].append(epoch)
            columns["step"].append(number)
            columns["window"].append(timed if epoch == 1 else "boundary")
            columns["asked"].append(now)
            now += step_s
            columns["done_s"].append(now)
    asked = columns.pop("asked")
    values = {
        "kind": "full", "startup_s": 5.0, "first_batch_s": 0.0, "restart_s": 0.0,
        "throughput_s": sum(steps_s[warmup:]), "throughput_steps": len(steps_s) - warmup,
        "throughput_rows": 8 * (len(steps_s) - warmup), "complete": True,
    }  # fmt: skip
    stamps = Stamps(asked_s=asked, delivered_s=asked, rows=[8] * len(asked), **columns)
    return Measurement(stamps=stamps, **{**values, **fields})


@pytest.mark.parametrize("slow", [[30.0], [30.0, 2.0], [5.0, 3.0, 1.0, 0.5]])
def test_as_many_steps_as_are_slow_are_set_apart(slow):
    found = without_warm_up(launch([*slow, *[0.1] * 20]))
    assert found.warm_up_steps == len(slow)
    assert found.warm_up_s == pytest.approx(sum(slow) - 0.1 * len(slow))
    assert mean_step_s(found) == pytest.approx(0.1)
    assert found.throughput_steps == 20
    assert found.throughput_rows == 160


def test_it_counts_once_a_run_and_not_in_each_epoch():
    sizes = RunSizes(epochs=10, train_batches=1000)
    slow = without_warm_up(launch([20.0, 4.0, *[0.1] * 20]))
    plain = without_warm_up(launch([0.1] * 22))
    found, other = project([slow], sizes), project([plain], sizes)
    assert found.total.mean - other.total.mean == pytest.approx(23.8)
    assert found.epoch.mean == pytest.approx(other.epoch.mean)
    # an epoch that was timed as a whole had it, too
    whole = {"epoch_complete": True, "epoch_batches": 22, "epoch_s": 26.0}
    timed = without_warm_up(launch([20.0, 4.0, *[0.1] * 20], **whole))
    assert timed.epoch_s == pytest.approx(26.0 - 23.8)


@pytest.mark.parametrize(
    "steps_s",
    [
        [0.1] * 20,
        [0.19, *[0.1] * 20],  # a little slower
        [0.4, *[0.1] * 10, 0.5, *[0.1] * 9],  # as slow again later: that may come at any time
        [3.0, 0.1, 0.1],  # nobody knows yet what a step takes
        [0.002, *[0.0001] * 20],  # not worth a word
    ],
)
def test_what_is_no_warm_up_is_left_alone(steps_s):
    measurement = launch(steps_s)
    assert without_warm_up(measurement) is measurement


def test_first_batches_that_are_slow_in_each_epoch_are_data():
    steps_s = [2.0, *[0.1] * 20]
    assert without_warm_up(launch(steps_s, second=[2.0])).warm_up_steps == 0
    assert without_warm_up(launch(steps_s, second=[0.1])).warm_up_steps == 1


def test_cpu_time_and_stages_lose_their_share():
    stages = {"backward": [4.0, *[0.1] * 20]}
    found = without_warm_up(launch([20.0, 4.0, *[0.1] * 20], cpu_s=6.0, stages=stages))
    assert found.cpu_s == pytest.approx(2.0)
    assert found.stages == {"backward": [0.1] * 20}
    assert replace(found, stages={}).stamps.window[:3] == ["warmup", "warmup", "throughput"]
