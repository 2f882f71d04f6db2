import math

import numpy as np
import pytest

from ctrkit.measure.caution import OPEN_ENDED_DRIFT, beyond_the_begin, cautious, drifting
from ctrkit.measure.samples import HEAVY_TAIL, NOT_STEADY, sample_of
from ctrkit.measure.statistics import interval, prediction_interval


def step(*windows):
    samples = [sample_of(window) for window in windows]
    plain = prediction_interval(samples, 1000)
    return samples, plain, cautious(plain, samples, samples)


def test_without_a_flag_nothing_changes():
    _, plain, careful = step([1.0] * 40, [1.01] * 40)
    assert careful == plain


def test_a_heavy_tail_allows_for_more_slow_steps_and_for_fewer():
    quiet = [1.0] * 59
    samples, plain, careful = step([*quiet, 20.0], [*quiet, 1.0])
    assert samples[0].has(HEAVY_TAIL)
    assert (samples[0].slow.count, samples[0].slow.excess_s) == (1, pytest.approx(19.0))
    # one was seen in 120: five or six may come in as many (Poisson, 97.5 %)
    assert careful.high > 1 + 5 / 120 * 19
    assert careful.low <= plain.low
    assert careful.mean == plain.mean


def test_steps_that_changed_their_pace_may_keep_either():
    random = np.random.default_rng(0)
    window = np.concatenate([random.normal(1, 0.01, 30), random.normal(1.3, 0.01, 30)])
    samples, plain, careful = step(window, window)
    assert samples[0].has(NOT_STEADY)
    assert samples[0].change == pytest.approx(0.3 / 1.15, rel=0.05)
    assert careful.high >= plain.high + 0.25
    assert 0 < careful.low <= plain.low / 1.2


@pytest.mark.parametrize("factor", [0.8, 0.95, 1.05])
def test_drift_allows_for_as_much_again(factor):
    time = interval(100.0, 10.0)
    found = drifting(time, factor)
    if factor > 1:
        assert (found.low, found.high) == (time.low, pytest.approx(time.high * factor**2))
    else:
        assert (found.low, found.high) == (pytest.approx(time.low * factor**2), time.high)
    assert found.mean == time.mean


def test_a_machine_that_got_much_slower_has_no_upper_bound():
    found = drifting(interval(100.0, 10.0), math.exp(OPEN_ENDED_DRIFT) * 1.01)
    assert math.isinf(found.high)
    assert found.low == 90


def test_a_stretch_of_slow_steps_may_come_as_often_as_a_count_of_one_allows():
    steady = [1.0, 1.02, 0.98, 1.01] * 15
    slow = [*steady[:30], *[2.0] * 10, *steady[40:]]
    samples, plain, careful = step(slow, steady, steady)
    seen = samples[0].slow
    assert (seen.count, seen.excess_s) == (1, pytest.approx(10.0, rel=0.03))
    assert seen.most_s == pytest.approx(10.0, rel=0.03)
    assert samples[0].has(HEAVY_TAIL)
    # one was seen in 180: five or six of ten seconds may come in as many
    assert careful.high > 1 + 5 / 180 * 10
    assert careful.low <= plain.low


def test_a_stretch_that_the_window_cuts_may_be_twice_as_long():
    steady = [1.0, 1.02, 0.98, 1.01] * 15
    assert sample_of([*steady[:55], *[2.0] * 5]).slow.most_s == pytest.approx(10.0, rel=0.03)


@pytest.mark.parametrize("slow", [2, 40])
def test_two_slow_steps_are_no_stretch_and_most_of_a_window_is_not_slow(slow):
    steady = [1.0, 1.02, 0.98, 1.01] * 15
    assert sample_of([*steady[: 60 - slow], *[2.0] * slow]).slow is None


def test_stretches_are_seldom_seen_by_chance():
    random = np.random.default_rng(2)
    drawn = [sample_of(random.gamma(10, 0.1, 60)) for _ in range(500)]
    assert sum(sample.slow is not None for sample in drawn) <= 2


@pytest.mark.parametrize("last", [0.9, 1.1])
def test_a_line_through_the_begin_of_an_epoch_may_go_on_to_its_end(last):
    random = np.random.default_rng(1)
    samples, _, plain = step(np.linspace(1, last, 60) * random.normal(1, 0.02, 60))
    found = beyond_the_begin(plain, samples, 1200)
    if last > 1:  # 2 s at the end
        assert found.high > 1 + (1200 / 60 * 0.1) / 2
        assert (found.mean, found.low) == (plain.mean, plain.low)
    else:
        assert found.low < 0.5
        assert (found.mean, found.high) == (plain.mean, plain.high)


def test_no_line_is_seen_in_steps_that_only_scatter():
    random = np.random.default_rng(1)
    found = 0
    for _ in range(300):
        samples, _, plain = step(random.normal(1, 0.15, 60))
        found += beyond_the_begin(plain, samples, 1200) is not None
    assert found <= 0.025 * 300
