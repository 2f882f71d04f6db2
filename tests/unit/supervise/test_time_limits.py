from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrkit.core.progress import Stage
from ctrkit.supervise.time_limits import TimeLimits

STEPS = st.lists(st.floats(1e-4, 1e4), max_size=20)


@given(stage=st.sampled_from(Stage), steps_s=STEPS, workers=st.integers(0, 16))
def test_every_stage_has_a_limit_with_a_reason(
    stage: Stage, steps_s: list[float], workers: int
) -> None:
    limit = TimeLimits(workers=workers).for_stage(stage, steps_s)
    assert 0 < limit.idle_s < limit.burning_s
    assert limit.reason


@given(stage=st.sampled_from(Stage), steps_s=STEPS)
def test_a_stall_timeout_sets_every_stage(stage: Stage, steps_s: list[float]) -> None:
    limit = TimeLimits(workers=3, device="mps").with_stall_timeout(7).for_stage(stage, steps_s)
    assert (limit.idle_s, limit.burning_s) == (7, 14)


def test_the_steady_limit_follows_the_median_once_there_are_enough_steps() -> None:
    time_limits = TimeLimits()
    assert time_limits.for_stage(Stage.STEP, [4.0, 4.0]).burning_s == 600
    assert time_limits.for_stage(Stage.STEP, [4.0, 4.0, 100.0]).idle_s == 80
    assert time_limits.for_stage(Stage.STEP, [4.0, 4.0, 100.0]).burning_s == 160
    assert time_limits.for_stage(Stage.STEP, [0.1, 0.1, 0.1]).idle_s == 30
    assert "20 x the median step of 4 s" in time_limits.for_stage(Stage.STEP, [4.0] * 3).reason


def test_a_first_batch_that_burns_gets_the_longest_step_in_every_epoch() -> None:
    limit = TimeLimits().for_stage(Stage.FIRST_BATCH, [0.1] * 50)
    assert (limit.idle_s, limit.burning_s) == (60, 600)


def test_first_steps_of_an_unseen_device_get_more() -> None:
    assert TimeLimits(device="cpu").for_stage(Stage.STEP).idle_s == 60
    assert TimeLimits(device="mps").for_stage(Stage.STEP).idle_s == 300
    assert TimeLimits(device="mps").for_stage(Stage.STEP, [0.1] * 3).idle_s == 30


@pytest.mark.parametrize("stage", [Stage.SHUTDOWN, Stage.EPOCH_BOUNDARY, Stage.STEP])
def test_workers_get_time_to_unwind(stage: Stage) -> None:
    assert TimeLimits(workers=8).for_stage(stage, [0.1] * 3).idle_s == 85


def test_slow_steps_make_room_for_validation() -> None:
    assert TimeLimits().for_stage(Stage.VALIDATION, [0.1] * 3).idle_s == 60
    assert TimeLimits().for_stage(Stage.VALIDATION, [10.0] * 3).idle_s == 200
