import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrkit.core.config import make_cell
from ctrkit.probe.windows import (
    Costs,
    compute_windows,
    full_cost_s,
    full_windows,
    loader_only_windows,
    loader_windows,
    warmup_steps,
)

SIMPLE = make_cell(loader="thread")
WORKERS = make_cell(loader="batches", workers=2)
costs = st.builds(
    Costs,
    launch_s=st.floats(0.5, 10),
    step_s=st.floats(0.001, 20),
    workers_s=st.floats(0, 10),
    validation_batch_s=st.floats(0, 10),
    checkpoint_s=st.floats(0, 5),
)


def test_prefilled_batches_are_warm_up():
    assert warmup_steps(SIMPLE) == 1
    assert warmup_steps(WORKERS) == 4


@given(costs, st.sampled_from([SIMPLE, WORKERS, make_cell(device="mps")]), st.floats(1, 300))
def test_a_plan_that_fits_is_found_whenever_the_least_fits(costs, cell, target_s):
    plan, expected_s = full_windows(cell, costs, target_s)
    least = full_windows(cell, costs, 0.0)[1]
    assert expected_s <= max(target_s, least) + 0.5
    assert plan.min_steps >= 1
    assert plan.validation_batches <= 20
    assert plan.checkpoints <= 2


def test_with_much_time_everything_is_measured():
    costs = Costs(step_s=0.1, validation_batch_s=0.05, checkpoint_s=0.2)
    plan, _ = full_windows(SIMPLE, costs, 60.0)
    assert plan.validation_batches == 20
    assert plan.checkpoints == 2
    assert plan.boundary
    assert plan.window_s == 10.0


def test_with_little_time_steps_and_boundary_come_first():
    costs = Costs(step_s=11.0, validation_batch_s=3.5, checkpoint_s=1.0)
    plan, expected_s = full_windows(SIMPLE, costs, 66.0)
    assert (plan.min_steps, plan.boundary, plan.boundary_steps) == (3, True, 1)
    assert expected_s <= 66.0
    shorter, _ = full_windows(SIMPLE, costs, 55.0)
    assert (shorter.min_steps, shorter.boundary) == (2, True)
    assert full_windows(SIMPLE, costs, 1.0)[0].boundary is False


def test_the_cost_counts_each_start_of_the_workers():
    costs = Costs(launch_s=5, step_s=1, workers_s=3)
    plan, _ = full_windows(WORKERS, costs, 0.0)
    assert full_cost_s(WORKERS, costs, plan) - full_cost_s(SIMPLE, costs, plan) == pytest.approx(3)


def test_a_step_of_unknown_length_is_measured_once_at_least():
    plan = compute_windows(30.0)
    assert plan.min_steps == 1
    assert plan.window_s <= 10
    assert not plan.boundary


def test_loader_windows_shrink_with_the_time_there_is():
    costs = Costs(launch_s=4.0)
    roomy, _ = loader_windows(SIMPLE, costs, 20.0)
    tight, expected_s = loader_windows(SIMPLE, costs, 5.0)
    assert (roomy.window_s, roomy.boundary) == (2.0, True)
    assert tight.window_s < roomy.window_s
    assert not tight.boundary
    assert expected_s == pytest.approx(4.0 + 0.7 + tight.window_s)


@pytest.mark.parametrize(("target_s", "window_s"), [(1.0, 0.5), (8.0, 2.3), (100.0, 10.0)])
def test_a_loader_alone_gets_what_its_start_leaves(target_s, window_s):
    plan, _ = loader_only_windows(SIMPLE, Costs(launch_s=5.0), target_s)
    assert plan.window_s == pytest.approx(window_s)
    assert plan.boundary


def test_short_steps_are_measured_for_half_a_second_however_little_time_there_is():
    windows, expected_s = full_windows(SIMPLE, Costs(launch_s=4.0, step_s=0.01), 0.0)
    assert windows.window_s == 0.5
    assert expected_s < 5.5
