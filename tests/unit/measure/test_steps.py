import dataclasses

import numpy as np
import pytest

from ctrkit.core.child_records import Measurement
from ctrkit.core.config import RunSizes
from ctrkit.measure.replay import Load, replay
from ctrkit.measure.samples import HEAVY_TAIL
from ctrkit.measure.statistics import prediction_interval
from ctrkit.measure.steps import (
    cpu_per_step_s,
    data_wait_share,
    mean_step_s,
    mean_wait_s,
    rows_per_s,
    sample_of_load,
    sample_of_measurement,
    sizes_of,
    stage_means_s,
    step_times_s,
    steps_measured,
)


def test_only_the_throughput_window_counts(measured):
    measurement = measured([1.0, 3.0], wait_s=0.5, warmup_s=[50.0, 50.0])
    assert step_times_s(measurement) == pytest.approx([1.0, 3.0])
    assert mean_step_s(measurement) == 2.0
    assert mean_wait_s(measurement) == pytest.approx(0.5)
    assert data_wait_share(measurement) == pytest.approx(0.25)
    assert rows_per_s(measurement) == 50.0


def test_the_window_synchronised_at_its_ends_beats_the_stamps(measured):
    measurement = measured([0.1, 0.1], throughput_s=4.0)
    assert mean_step_s(measurement) == 2.0
    assert sample_of_measurement(measurement).mean == 2.0


def test_a_window_that_was_cut_off_is_read_from_its_stamps(measured):
    cut = measured([1.0, 2.0, 3.0], throughput_s=None, throughput_steps=0, throughput_rows=0)
    assert mean_step_s(cut) == pytest.approx(2.0)
    assert steps_measured(cut) == 3
    assert rows_per_s(cut) == pytest.approx(50.0)


def test_nothing_measured_is_none_and_not_zero():
    empty = Measurement(kind="full")
    assert mean_step_s(empty) is None
    assert rows_per_s(empty) is None
    assert data_wait_share(empty) is None
    assert cpu_per_step_s(empty) is None
    assert sample_of_measurement(empty) is None
    assert stage_means_s([empty]) == {}


def test_stage_means_pool_launches_in_the_order_of_a_step(measured):
    one = measured([1.0], stages={"backward": [2.0, 4.0], "forward": [1.0]})
    two = measured([1.0], stages={"backward": [6.0]})
    assert list(stage_means_s([one, two]).items()) == [("forward", 1.0), ("backward", 4.0)]


def test_cpu_seconds_are_per_step(measured):
    assert cpu_per_step_s(measured([1.0, 1.0], cpu_s=3.0)) == 1.5


def test_an_epoch_that_ended_by_itself_is_counted(measured):
    counted = measured([1.0], epoch_complete=True, epoch_batches=7, epoch_rows=70)
    assert sizes_of([counted], None) == RunSizes(train_batches=7, train_rows=70)
    assert sizes_of([counted], RunSizes(epochs=3)).epochs == 3
    known = RunSizes(epochs=3, train_batches=500)
    assert sizes_of([counted], known).train_batches == 7  # what was counted overrides a claim
    assert sizes_of([dataclasses.replace(counted, epoch_complete=False)], None) is None


def test_whole_turns_of_the_workers_make_the_mean(measured):
    bursts = [0.5, 1.5] * 4 + [0.5]
    assert sample_of_measurement(measured(bursts), cycle=2).mean == pytest.approx(1.0)
    assert sample_of_measurement(measured(bursts)).mean < 0.96


def test_a_replayed_epoch_has_its_free_batches_and_not_the_first_wait():
    # two workers with four batches in flight; the first is there after 2 s, then 1 s a batch
    load = Load(service_s=[2.0] * 10, consumer_s=[0.0] * 10, workers=2)
    assert sample_of_load(load, 100).mean == pytest.approx((2.0 * 50 - 2.0) / 100)
    stalled = Load(service_s=[2.0] * 10, consumer_s=[8.0] + [0.0] * 9, workers=2)
    # all four in flight are there after the slow step: the workers start with the fifth
    assert sample_of_load(stalled, 100).mean == pytest.approx((8.0 + 96 / 2 * 2) / 100)


def test_what_does_not_limit_adds_neither_noise_nor_flags():
    noisy = [float(s) for s in 0.2 * (1 + np.random.default_rng(0).pareto(2.2, 60))]
    limits = sample_of_load(Load(service_s=noisy, consumer_s=[0.1] * 60, workers=1), 400)
    idle = sample_of_load(Load(service_s=noisy, consumer_s=[3.0] * 60, workers=4), 400)
    assert HEAVY_TAIL in limits.flags
    assert idle.flags == ()
    assert idle.variance < 1e-3 * limits.variance
    assert idle.mean == pytest.approx(3.0, rel=0.01)


def trap(seed, workers=8, prefetch=4, probe=60, batches=400):
    """A probe during whose slow first step the queue fills, and the epoch: stamps of both."""
    random = np.random.default_rng(seed)
    epochs = []
    for count in (probe, batches):
        service = [float(s) for s in random.gamma(25, 10 / 25, count)]
        step = [100.0, *(float(s) for s in random.gamma(25, 1 / 25, count - 1))]
        epochs.append((service, step, replay(service, step, workers=workers, prefetch=prefetch)))
    (service, step, seen), (_, _, real) = epochs
    load = Load(service_s=service, consumer_s=step, workers=workers, prefetch=prefetch)
    ends = [d + c for d, c in zip(seen.delivered_s, step, strict=True)]
    return load, ends, real.total_s - real.delivered_s[0]


@pytest.mark.parametrize("seed", range(10))
def test_the_queue_that_a_slow_first_step_fills_fools_an_average_but_not_the_replay(seed):
    batches, skipped = 400, 32
    load, ends, real_s = trap(seed)
    step = prediction_interval([sample_of_load(load, batches)], batches)
    assert step.mean * batches == pytest.approx(real_s, rel=0.08)
    assert step.low * batches <= real_s <= step.high * batches
    # the mean of all steps makes every seventh as slow as the first ...
    naive_s = (ends[-1] - ends[0] + 100) / 60 * batches
    assert naive_s > 1.5 * real_s
    # ... and after workers x prefetch steps the queue is still not empty
    after_s = (ends[-1] - ends[skipped - 1]) / (60 - skipped)
    assert 100 + after_s * (batches - 1) < 0.92 * real_s
