import dataclasses

import pytest

from ctrkit.config import RunSizes
from ctrkit.measure.steps import (
    cpu_per_step_s,
    data_wait_share,
    mean_step_s,
    mean_wait_s,
    rows_per_s,
    sample_of_measurement,
    sizes_of,
    stage_means_s,
    step_times_s,
    steps_measured,
)
from ctrkit.records import Measurement


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
    assert sizes_of([counted], None) == RunSizes(epochs=1, train_batches=7, train_rows=70)
    assert sizes_of([counted], RunSizes(epochs=3)).epochs == 3
    known = RunSizes(epochs=3, train_batches=500)
    assert sizes_of([counted], known) == known
    assert sizes_of([dataclasses.replace(counted, epoch_complete=False)], None) is None
