import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrkit.core.launch_spread import SHIPPED
from ctrkit.measure.quantiles import holm
from ctrkit.measure.ratio import LaunchTime, Ratio, ratio_of
from ctrkit.measure.samples import sample_of
from ctrkit.measure.statistics import mean_interval

times = st.floats(1e-4, 1e4)
shares = st.floats(0.001, 0.5)


def launches(*means_s: float, half: float | None = None) -> list[LaunchTime]:
    return [LaunchTime(mean_s=m, half_s=None if half is None else half * m) for m in means_s]


@given(st.lists(times, min_size=1, max_size=5), st.lists(times, min_size=1, max_size=5), shares)
def test_the_ratio_lies_in_its_interval_and_the_other_way_round_is_its_inverse(
    base: list[float], new: list[float], half: float
) -> None:
    there = ratio_of(launches(*base, half=half), launches(*new, half=half))
    back = ratio_of(launches(*new, half=half), launches(*base, half=half))
    assert there.low <= there.mean <= there.high
    assert back.mean == pytest.approx(1 / there.mean)
    assert back.low == pytest.approx(1 / there.high)


@given(times, times, shares, st.floats(0.01, 100))
def test_the_unit_does_not_matter(base: float, new: float, half: float, factor: float) -> None:
    one = ratio_of(launches(base, half=half), launches(new, half=half))
    other = ratio_of(launches(base * factor, half=half), launches(new * factor, half=half))
    assert (other.low, other.high) == pytest.approx((one.low, one.high))


def test_agreeing_launches_narrow_the_interval_and_scattered_ones_widen_it() -> None:
    one = ratio_of(launches(1.0), launches(1.2))
    three = ratio_of(launches(1.0, 1.0, 1.0), launches(1.2, 1.2, 1.2))
    scattered = ratio_of(launches(0.8, 1.0, 1.2), launches(1.0, 1.2, 1.4))
    assert three.high < one.high
    assert scattered.high > three.high
    assert three.mean == pytest.approx(1.2)


def test_against_an_exact_base_a_launch_keeps_the_interval_that_was_recorded() -> None:
    recorded = mean_interval([sample_of([1.0] * 400)])
    exact = [LaunchTime(mean_s=1.0, half_s=0.0)]
    ratio = ratio_of(exact, [LaunchTime(mean_s=recorded.mean, half_s=recorded.half)])
    assert ratio.high == pytest.approx(recorded.high, rel=0.01)


def test_the_interval_covers_the_true_ratio_as_often_as_it_says() -> None:
    """Launches that scatter by 3 %, as is assumed: 95 % of the intervals hold the true ratio."""
    chance, covered = random.Random(7), 0
    for _ in range(800):
        base = launches(*(chance.gauss(1.0, 0.03) for _ in range(3)))
        new = launches(*(chance.gauss(1.1, 0.033) for _ in range(3)))
        found = ratio_of(base, new)
        covered += found.low <= 1.1 <= found.high
    assert 0.93 <= covered / 800 <= 0.995


def test_without_launches_there_is_no_ratio() -> None:
    with pytest.raises(ValueError, match="no launches"):
        ratio_of([], launches(1.0))


def test_p_above_agrees_with_the_interval() -> None:
    ratio = ratio_of([LaunchTime(mean_s=1.0, half_s=0.05)], [LaunchTime(mean_s=1.2, half_s=0.05)])
    assert ratio.p_above(ratio.low) == pytest.approx(0.025)
    assert ratio.p_above(ratio.mean) == pytest.approx(0.5)
    assert ratio.p_above(ratio.high) == pytest.approx(0.975)


def test_a_ratio_without_spread_is_certain() -> None:
    assert Ratio(mean=1.1, low=1.1, high=1.1).p_above(1.05) == 0.0
    assert Ratio(mean=1.1, low=1.1, high=1.1).p_above(1.1) == 1.0


@pytest.mark.parametrize("cells", [1, 5, 20])
def test_many_cells_that_are_equal_seldom_show_a_regression(cells: int) -> None:
    """Of 400 comparisons of equal cells with true launch spreads, about 2.5 % may fail the gate."""
    rng = np.random.default_rng(cells)
    failed = 0
    for _ in range(400):
        times = 1 + SHIPPED.relative * rng.standard_normal((cells, 2, 3))
        ratios = [
            ratio_of(*([LaunchTime(mean_s=float(t)) for t in side] for side in cell))
            for cell in times
        ]
        failed += any(holm([ratio.p_above(1.0) for ratio in ratios], 0.025))
    assert failed <= 400 * 0.025 + 3 * (400 * 0.025) ** 0.5


def test_holm_rejects_step_by_step() -> None:
    assert holm([0.01, 0.04, 0.02], 0.05) == [True, True, True]
    assert holm([0.02, 0.04, 0.02], 0.05) == [False, False, False]
    assert holm([0.001, 0.04, 0.9], 0.05) == [True, False, False]
    assert holm([], 0.05) == []
