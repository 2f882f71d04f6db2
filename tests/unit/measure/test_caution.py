import math

import numpy as np
import pytest

from ctrkit.measure.caution import OPEN_ENDED_DRIFT, cautious, drifting
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
