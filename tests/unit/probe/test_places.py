"""Launches of a cell begin at different places of the epoch; cells are compared at common ones."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from ctrkit.probe.candidates import at_common_places, candidates_of
from ctrkit.probe.windows import epoch_share
from tests.unit.probe.test_cell_results import A, B, full

FIRST, MIDDLE, END = (epoch_share(launch) for launch in (1, 2, 3))


def at(trial, share):
    windows = replace(trial.request.windows, epoch_share=share)
    measured = replace(trial.result.measurement, first_batch=round(share * 100))
    return replace(
        trial,
        request=replace(trial.request, windows=windows),
        result=replace(trial.result, measurement=measured),
    )


def test_any_number_of_launches_is_spread_over_the_epoch():
    places = [epoch_share(launch) for launch in range(1, 18)]
    assert places[0] == 0
    assert len(set(places)) == len(places)
    assert all(0 <= place < 1 for place in places)
    for count in (3, 5, 9, 17):
        seen = sorted([*places[:count], 1.0])
        widest = max(later - earlier for earlier, later in itertools.pairwise(seen))
        assert widest <= max(0.5, 2 / count)


def test_a_cell_that_also_ran_where_batches_cost_more_is_not_slower(inspection):
    sorted_data = [at(full(A, 1.0), FIRST), at(full(A, 2.0), MIDDLE), at(full(A, 3.0), END)]
    trials = [*sorted_data, at(full(B, 1.2), FIRST)]
    assert at_common_places([A, B], trials) == [trials[0], trials[3]]
    found = {c.cell: c.objective for c in candidates_of(trials, inspection())}
    assert found[A] < found[B]


@pytest.mark.parametrize("ran_alike", [True, False])
def test_places_that_do_not_differ_all_count(ran_alike):
    trials = [at(full(A, 1.0), FIRST), at(full(A, 1.02), MIDDLE), at(full(B, 1.2), FIRST)]
    if ran_alike:
        trials.append(at(full(B, 1.22), MIDDLE))
    assert at_common_places([A, B], trials) == trials


def rising_with(cell, speed, steps):
    """A launch of so many steps from the epoch's begin; each takes 1 % longer than the last."""
    trial, done_s = full(cell, 1.0, steps=steps), [0.0]
    for i in range(steps):
        done_s.append(done_s[-1] + speed * (1 + 0.01 * i))
    stamps = replace(
        trial.result.measurement.stamps, asked_s=done_s[:-1], delivered_s=done_s[:-1],
        done_s=done_s[1:],
    )  # fmt: skip
    measured = replace(
        trial.result.measurement, stamps=stamps, throughput_s=done_s[-1], throughput_steps=steps
    )
    return replace(trial, result=replace(trial.result, measurement=measured))


@pytest.mark.parametrize("slower", [1.3, 0.7])
def test_a_short_window_at_the_epochs_begin_is_no_gain_on_sorted_data(inspection, slower):
    # A saw 100 batches, B but the first, cheap ones
    trials = [rising_with(A, 1.0, 100), rising_with(B, slower, 8)]
    found = {c.cell: c for c in candidates_of(trials, inspection())}
    ratio = found[B].projection.terms["training"].mean / found[A].projection.terms["training"].mean
    assert ratio == pytest.approx(slower, rel=0.05)
    assert "varies over the epoch" in found[B].projection.flags
    assert (found[B].objective > found[A].objective) is (slower > 1)


def test_without_a_trend_other_cells_tell_nothing(inspection):
    trials = [full(A, 1.0, steps=100), full(B, 1.3, steps=8)]
    found = {c.cell: c for c in candidates_of(trials, inspection())}
    assert "varies over the epoch" not in found[B].projection.flags
    assert found[B].projection.step.mean == pytest.approx(1.3)


def test_a_launch_that_fails_elsewhere_is_made_again_from_the_first_batch(machine):
    fails, shares = machine(), []
    launched = fails.launch

    def launch(request, deadline_s):
        result = launched(request, deadline_s)
        shares.append(request.windows.epoch_share)
        if not shares[-1]:
            return result
        measured = replace(result.measurement, first_batch=100)
        return replace(
            result, verdict="crashed", stage="step", reason="OSError: not in order",
            measurement=measured,
        )  # fmt: skip

    fails.launch = launch
    result = fails.search(budget_s=400.0)
    assert sum(share > 0 for share in shares) == 1
    place = next(i for i, share in enumerate(shares) if share)
    assert shares[place + 1 :]
    (failed,) = (t for t in result.trials if t.result.verdict == "crashed")
    assert failed.cell in [r.cell for r in fails.requests[place + 1 :]]
