import math

import numpy as np
import pytest

from ctrkit.core.launch_spread import PRIOR_PAIRS, SHIPPED, Pair, learned_spread


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
        (PRIOR_PAIRS * SHIPPED.relative**2 + outlier.deviation**2) / (PRIOR_PAIRS + 21)
    )
    assert learned_spread(calm).relative < with_it < counted_in_full / 2
