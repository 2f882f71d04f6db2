"""Ends of steps from fake device stamps; no GPU is used."""

from __future__ import annotations

import dataclasses
import statistics

import numpy as np
import pytest
from unit.measure.test_loads import launched

from ctrkit.core.child_records import Measurement
from ctrkit.core.config import make_cell
from ctrkit.measure.later_epochs import _seconds
from ctrkit.measure.loads import load_of
from ctrkit.measure.step_ends import by_device, ends_s
from ctrkit.measure.steps import data_wait_share, sample_of_measurement, step_times_s


def on_device(measured: Measurement, steps_s: list[float]) -> Measurement:
    """The launch, whose host only asks, every step at the same time, and waits at the end."""
    stamps, at_s, ends, host = measured.stamps, measured.stamps.asked_s[1], [None], [0.0]
    pace_s = 1e-4
    for place, seconds in enumerate(steps_s, start=1):
        at_s += seconds
        ends.append(at_s)
        host.append(stamps.asked_s[1] + pace_s * place)
    host[0] = stamps.done_s[0]
    told = dataclasses.replace(
        stamps, device_done_s=ends, done_s=host,
        asked_s=[stamps.asked_s[0], *host[:-1]], delivered_s=[stamps.delivered_s[0], *host[:-1]],
    )  # fmt: skip
    return dataclasses.replace(measured, stamps=told, throughput_s=sum(steps_s))


def test_steps_are_the_devices_and_so_is_their_scatter(measured) -> None:
    random = np.random.default_rng(3)
    steps_s = [float(s) for s in random.gamma(10.0, 0.01, 60)]  # 31 % of scatter
    found = on_device(measured(steps_s), steps_s)
    assert by_device(found.stamps)
    assert step_times_s(found) == pytest.approx(steps_s)
    sample = sample_of_measurement(found)
    assert sample.mean == pytest.approx(statistics.fmean(steps_s))
    assert sample.variance**0.5 == pytest.approx(statistics.stdev(steps_s), rel=0.05)
    blind = dataclasses.replace(found.stamps, device_done_s=[])
    as_host = sample_of_measurement(dataclasses.replace(found, stamps=blind))
    assert as_host.variance < sample.variance / 100  # the queue has none


def test_a_loader_that_keeps_ahead_of_the_device_is_not_waited_for(measured) -> None:
    """The host waits 20 ms for each batch, while the device still computes for 60 ms."""
    found = on_device(measured([0.06] * 20), [0.06] * 20)
    asked = [s + 0.02 * i for i, s in enumerate(found.stamps.asked_s)]
    delivered = [s + 0.02 for s in asked]
    stamps = dataclasses.replace(found.stamps, asked_s=asked, delivered_s=delivered)
    hidden = dataclasses.replace(found, stamps=stamps)
    assert data_wait_share(hidden) < 0.02
    on_host = dataclasses.replace(stamps, device_done_s=[])
    assert data_wait_share(dataclasses.replace(found, stamps=on_host)) == pytest.approx(1 / 3)


def test_a_device_that_waits_for_its_batches_waits_only_when_idle(measured) -> None:
    """A batch arrives 50 ms after the device has ended the step before."""
    found = on_device(measured([0.1] * 10), [0.1] * 10)
    done = found.stamps.device_done_s
    delivered = [*found.stamps.delivered_s[:2], *(at_s + 0.05 for at_s in done[1:-1])]
    stamps = dataclasses.replace(found.stamps, delivered_s=delivered)
    share = data_wait_share(dataclasses.replace(found, stamps=stamps))
    assert share == pytest.approx(0.5 * 9 / 10, rel=0.02)


def test_a_step_without_the_devices_stamp_in_the_window_leaves_all_to_the_host(
    measured,
) -> None:
    found = on_device(measured([0.1] * 5), [0.1] * 5)
    found.stamps.device_done_s[-1] = None
    assert not by_device(found.stamps)
    assert ends_s(found.stamps) == found.stamps.done_s


def test_a_second_epoch_that_only_the_host_stamped_is_not_compared(measured) -> None:
    found = on_device(measured([0.1] * 5), [0.1] * 5)
    stamps = found.stamps
    for column, value in (("epoch", 2), ("step", 1), ("window", "boundary"), ("rows", 1)):
        getattr(stamps, column).extend([value] * 3)
    for column in ("asked_s", "delivered_s", "done_s"):
        getattr(stamps, column).extend([50.0, 50.1, 50.2])
    stamps.device_done_s.extend([None] * 3)
    assert len(_seconds(found, 1)) == 5
    assert _seconds(found, 2) == {}


def test_a_load_keeps_what_the_device_takes_of_each_batch() -> None:
    random = np.random.default_rng(5)
    consumer = [float(s) for s in random.gamma(25.0, 0.004, 40)]
    measured = launched([0.01] * 40, consumer)  # the step is what takes long
    stamps = measured.stamps
    ends = list(stamps.done_s)
    told = dataclasses.replace(
        stamps,
        device_done_s=[
            None if window == "warmup" else end
            for window, end in zip(stamps.window, ends, strict=True)
        ],
    )
    load = load_of(
        dataclasses.replace(measured, stamps=told),
        make_cell(loader="batches", workers=2, prefetch=2, threads=1),
    )
    assert load is not None
    assert load.consumer_s[1:] == pytest.approx(consumer[4:])
