from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrkit.core.progress import Stage
from ctrkit.supervise.time_limits import RAISED_MOST_S, StageTimes, TimeLimits

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


LEARNING = (Stage.FIRST_BATCH, Stage.VALIDATION, Stage.METRICS, Stage.CHECKPOINT, Stage.DATA)


@pytest.mark.parametrize("stage", LEARNING)
def test_a_run_waits_longer_for_what_nobody_has_measured_and_says_so(stage: Stage) -> None:
    limits = TimeLimits()
    assert limits.for_stage(stage).idle_s == 60
    limit = limits.for_stage(stage, (), StageTimes(is_run=True))
    assert (limit.idle_s, limit.burning_s) == (600, 900)
    assert "nothing is known yet about how long" in limit.reason
    assert "10 min" in limits.in_words(StageTimes(is_run=True))


@pytest.mark.parametrize("stage", LEARNING)
def test_a_limit_grows_with_what_was_measured(stage: Stage) -> None:
    slow = StageTimes(is_run=True, longest_s={stage: 100.0})
    limit = TimeLimits().for_stage(stage, (), slow)
    assert limit.idle_s == 500
    assert "5 x the longest of this stage, 1 min 40 s" in limit.reason
    fast = StageTimes(is_run=True, longest_s={stage: 0.5})
    assert TimeLimits().for_stage(stage, (), fast).idle_s == 60
    assert fast.seen({stage: 2.0, Stage.STEP: 1.0}).longest_s == {stage: 2.0, Stage.STEP: 1.0}


@pytest.mark.parametrize("limits", [TimeLimits(), TimeLimits().with_stall_timeout(20.0)])
def test_after_a_verdict_the_next_is_not_given_at_the_same_limit(limits: TimeLimits) -> None:
    times, before_s = StageTimes(is_run=True, longest_s={Stage.METRICS: 1.0}), 0.0
    for _ in range(5):
        limit = limits.for_stage(Stage.METRICS, (), times)
        assert before_s < limit.idle_s <= max(RAISED_MOST_S, before_s + 2)
        before_s = limit.idle_s
        times = times.after_verdict(Stage.METRICS, limit.idle_s + 2)
    assert "raised after the last hang" in limits.for_stage(Stage.METRICS, (), times).reason
    assert limits.for_stage(Stage.DONE, (), times).idle_s < 60


def test_a_limit_that_was_set_is_kept_until_it_is_known_to_be_too_short() -> None:
    limits = TimeLimits(first_batch_s=20.0)
    assert limits.for_stage(Stage.FIRST_BATCH, (), StageTimes(is_run=True)).idle_s == 20
    known = StageTimes(is_run=True, longest_s={Stage.FIRST_BATCH: 10.0})
    assert limits.for_stage(Stage.FIRST_BATCH, (), known).idle_s == 50


def test_stages_with_the_same_limit_are_named_together() -> None:
    words = TimeLimits(checkpoint_s=180.0).in_words()
    assert "1 min 00 s in start-up, a first batch, validation or metrics, 3 min 00 s in " in words


def test_the_imports_of_a_probe_are_silent_for_no_longer_than_its_budget():
    learned = StageTimes(is_run=True)  # an inspection: its imports may take an unknown, long time
    free = TimeLimits()
    assert free.for_stage(Stage.IMPORT, (), learned).idle_s == 600
    bound = free.within_budget(120.0).for_stage(Stage.IMPORT, (), learned)
    assert bound.idle_s == 120
    assert "budget is 2 min" in bound.reason
    assert "longer --budget" in bound.reason
    # a minute at least, and no more than without a budget
    assert free.within_budget(5.0).for_stage(Stage.IMPORT, (), learned).idle_s == 60
    assert free.within_budget(9000.0).for_stage(Stage.IMPORT, (), learned).idle_s == 600
    # other stages stay, and so does what the user has set
    batch = free.within_budget(120.0).for_stage(Stage.FIRST_BATCH, (), learned)
    assert batch == free.for_stage(Stage.FIRST_BATCH, (), learned)
    # a workload's file is imported in the stage of its data, where the processor may work long
    data = free.within_budget(120.0).for_stage(Stage.DATA, (), learned)
    assert (data.idle_s, data.burning_s) == (120, 600)
    own = TimeLimits(startup_s=900.0)
    assert own.within_budget(120.0) == own
