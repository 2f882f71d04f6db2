import math

import numpy as np
import pytest

from ctrkit.core.launch_spread import SHIPPED, Pair, learned_spread
from ctrkit.measure.quantiles import CONFIDENCE, t_quantile


def pairs(spread, count, *, own=False, seed=0, launches=2):
    errors = np.random.default_rng(seed).normal(0, spread * math.sqrt(1 + 1 / launches), count)
    return [
        Pair(projected_s=10.0, actual_s=10 * math.exp(e), launches=launches, is_of_workload=own)
        for e in errors
    ]


def test_without_pairs_the_shipped_spread_stands():
    assert learned_spread([]) == SHIPPED
    assert not SHIPPED.is_learned


@pytest.mark.parametrize("spread", [0.01, 0.1])
def test_pairs_replace_what_is_shipped_as_they_accumulate(spread):
    few, some, many = (learned_spread(pairs(spread, n, own=True)) for n in (2, 12, 80))
    distance = [abs(math.log(found.relative / spread)) for found in (few, some, many)]
    assert distance[0] > distance[1] > distance[2]
    assert distance[2] < 0.35
    assert (many.pairs, many.own_pairs, many.is_learned) == (80, 80, True)
    assert SHIPPED.weight < few.weight < some.weight <= many.weight


def test_pairs_of_other_workloads_tell_the_size_and_not_how_sure_it_is():
    found = learned_spread(pairs(0.1, 20))
    assert found.relative > SHIPPED.relative
    assert found.weight == SHIPPED.weight


def test_the_workloads_own_pairs_have_the_last_word():
    calm_machine = pairs(0.01, 40, seed=1)
    found = learned_spread([*calm_machine, *pairs(0.1, 20, own=True)])
    assert found.relative > 2 * learned_spread(calm_machine).relative


def test_one_run_that_something_slowed_down_does_not_count_for_all():
    calm = pairs(0.02, 20, own=True)
    outlier = Pair(projected_s=10.0, actual_s=30.0, launches=2, is_of_workload=True)
    with_it = learned_spread([*calm, outlier]).relative
    counted_in_full = math.sqrt(
        (SHIPPED.weight * SHIPPED.relative**2 + outlier.deviation**2) / (SHIPPED.weight + 21)
    )
    assert learned_spread(calm).relative < with_it < counted_in_full / 4


@pytest.mark.parametrize(("calm", "most"), [(0, 1.0), (2, 0.08), (4, 0.05), (11, 0.035)])
def test_three_pairs_outvote_a_run_that_was_slowed_down(calm, most):
    slowed = Pair(projected_s=10.0, actual_s=20.0, launches=2, is_of_workload=True)
    assert learned_spread([*pairs(0.02, calm, own=True), slowed]).relative < most


@pytest.mark.parametrize("spread", [0.03, 0.05, 0.1])
def test_the_learned_spread_of_a_workload_is_not_too_small(spread):
    found = [learned_spread(pairs(spread, 60, own=True, seed=s)).relative for s in range(200)]
    assert np.median(found) == pytest.approx(spread, rel=0.05)


@pytest.mark.parametrize(("spread", "count"), [(0.02, 5), (0.05, 5), (0.05, 12), (0.1, 12)])
def test_the_next_run_lies_within_what_pairs_foretell(spread, count):
    held = 0
    for seed in range(2000):
        *told, ahead = pairs(spread, count + 1, own=True, seed=seed)
        found = learned_spread(told)
        held += abs(ahead.deviation) <= t_quantile(CONFIDENCE, found.weight) * found.relative
    assert held / 2000 >= 0.915


def test_pairs_of_the_workload_are_not_counted_twice():
    own = pairs(0.1, 12, own=True)
    elsewhere = pairs(0.01, 12, seed=1)
    assert learned_spread([*elsewhere, *own]).relative < learned_spread(own).relative
    # with no pair of another workload, only what is shipped stands beside them
    square = (2 * SHIPPED.relative**2 + sum(pair.deviation**2 for pair in own)) / 14
    assert learned_spread(own).relative == pytest.approx(math.sqrt(square), rel=0.15)
