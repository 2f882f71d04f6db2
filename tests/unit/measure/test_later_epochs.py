from dataclasses import replace

import numpy as np
import pytest

from ctrkit.core.child_records import Measurement, Stamps
from ctrkit.core.config import RunSizes
from ctrkit.measure.later_epochs import later_epochs, later_finding
from ctrkit.measure.projection import project


def two_epochs(first, second, **fields):
    """Steps of two epochs as a trial stamps them; the first of each is no step of its own."""
    stamps, now_s = Stamps(), 0.0
    for epoch, steps in ((1, first), (2, second)):
        for i, seconds in enumerate(steps, start=1):
            window = "warmup" if i == 1 else "throughput"
            stamps.epoch.append(epoch)
            stamps.step.append(i)
            stamps.window.append(window if epoch == 1 else "second")
            stamps.asked_s.append(now_s)
            stamps.delivered_s.append(now_s + seconds)
            now_s += seconds
            stamps.done_s.append(now_s)
            stamps.rows.append(10)
    return Measurement(
        kind="full", stamps=stamps, restart_s=second[0] if second else None, complete=True,
        throughput_s=sum(first[1:]), throughput_steps=len(first) - 1, **fields,
    )  # fmt: skip


def test_a_cache_that_fills_makes_later_epochs_faster():
    later = later_epochs([two_epochs([0.05] * 40, [0.005] * 20)])
    assert later.factor.mean == pytest.approx(0.1)
    assert "10x as fast" in later_finding(later, persistent=True, workers=2).text


def test_a_data_set_that_grows_makes_them_slower():
    later = later_epochs([two_epochs([0.01] * 40, [0.02] * 20)] * 2)
    assert later.factor.mean == pytest.approx(2)
    assert "slower: 100" in later_finding(later, persistent=False, workers=0).text


@pytest.mark.parametrize(
    "launches",
    [
        [two_epochs([0.05] * 40, [0.049] * 20)],
        [two_epochs([0.05] * 40, [0.005] * 3)],  # too few steps
        [two_epochs([0.001 * i for i in range(1, 80)], [0.001 * i for i in range(1, 20)])],
        [two_epochs([0.05] * 40, [0.005] * 20), two_epochs([0.05] * 40, [0.1] * 20)],
        [two_epochs([0.05] * 40, [])],
        [two_epochs([0.01, 0.09] * 20, [0.09, 0.01] * 10)],
    ],
)
def test_what_is_alike_or_sorted_or_not_known_is_no_other_pace(launches):
    assert later_epochs(launches) is None


def test_first_and_later_epochs_are_projected_apart():
    launch = two_epochs([0.05] * 101, [0.005] * 50, first_batch_s=0.05, epoch_complete=True,
                        epoch_batches=101, epoch_s=101 * 0.05)  # fmt: skip
    projection = project([launch, launch], RunSizes(epochs=10, train_batches=101))
    assert projection.first_epoch.mean == pytest.approx(5.0, rel=0.05)
    assert projection.epoch.mean == pytest.approx(0.5, rel=0.05)
    assert projection.total.mean == pytest.approx(5.0 + 9 * 0.5, rel=0.05)
    assert projection.total_of(1).mean == pytest.approx(5.0, rel=0.05)
    assert 0 < projection.total.low < projection.total.mean < projection.total.high
    once = project([launch, launch], RunSizes(epochs=1, train_batches=101))
    assert once.first_epoch is None
    assert once.epoch.mean == pytest.approx(5.0, rel=0.05)


def loaded(random, factor, *, rho=0.9, noise=0.15, load=0.3):
    """Steps that resemble each other, on a machine where other work comes and goes."""
    values, before = [], random.normal(0, noise)
    for _ in range(80):
        before = rho * before + random.normal(0, noise * (1 - rho * rho) ** 0.5)
        values.append(float(np.exp(before)))
    place, is_slow = 0, random.random() < load
    while place < 80:
        stay = int(random.exponential(40)) + 1
        for i in range(place, min(80, place + stay)):
            values[i] *= 1.6 if is_slow else 1.0
        place, is_slow = place + stay, random.random() < load
    return two_epochs(values[:60], [factor * value for value in values[60:]])


def said_of(launches, factor, count=150, **machine):
    randoms = [np.random.default_rng([seed, launches]) for seed in range(count)]
    found = [later_epochs([loaded(r, factor, **machine) for _ in range(launches)]) for r in randoms]
    return sum(one is not None for one in found) / count


@pytest.mark.parametrize("launches", [2, 3])
def test_a_machine_with_other_work_makes_no_other_epochs(launches):
    assert said_of(launches, 1.0) <= 0.03  # 1 % is nominal
    assert said_of(launches, 1.0, rho=0.0, noise=0.1) <= 0.05
    assert said_of(launches, 0.1) >= 0.8  # a cache that fills is found all the same
    assert said_of(launches, 0.5, rho=0.0, load=0.0) >= 0.95


def test_a_launch_beside_more_work_in_one_epoch_tells_nothing():
    slower = two_epochs([0.01] * 40, [0.02] * 20)
    assert later_epochs([replace(slower, other_cores=[0.1, 0.15])]) is not None
    assert later_epochs([replace(slower, other_cores=[0.1, 1.2])]) is None
    both = later_epochs([slower, replace(two_epochs([0.01] * 40, [0.05] * 20), other_cores=[0, 1])])
    assert both.factor.mean == pytest.approx(2)
