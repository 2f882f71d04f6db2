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
