import itertools
import math

import numpy as np
import pytest

from ctrkit.core.config import RunSizes
from ctrkit.measure.projection import LOW_CONFIDENCE, project
from ctrkit.measure.samples import FASTER, SLOWER, sample_of
from ctrkit.measure.trends import _chance_of, _kendall, trend_of, trending_epoch

RISING = [0.004 + 0.00025 * i for i in range(1, 300)]
SQUARE = [0.004 + 1e-6 * i**2 for i in range(1, 300)]


@pytest.mark.parametrize("values", [RISING, SQUARE, RISING[:12]])
def test_a_rise_is_found_by_rank(values):
    trend = trend_of(values)
    assert trend is not None
    assert trend.rises


def test_few_steps_must_be_in_order_to_be_a_trend():
    steps = [1.0 + 0.1 * i for i in range(10)]
    assert trend_of(steps) is not None
    one_pair = [*steps[:4], steps[5], steps[4], *steps[6:]]
    assert trend_of(one_pair) is not None
    five_pairs = [steps[5], *steps[:5], *steps[6:]]
    assert trend_of(five_pairs) is None


def test_random_steps_are_no_trend():
    random = np.random.default_rng(5)
    drawn = random.gamma(1.5, 1.0, (4000, 10))
    assert not any(trend_of(steps) for steps in drawn)


def test_the_chance_of_an_order_is_exact():
    orders = list(itertools.permutations(range(6)))
    taus = [_kendall(np.array(order)) for order in orders]
    for tau in sorted(set(taus)):
        as_far = sum(abs(other) >= abs(tau) - 1e-9 for other in taus) / len(orders)
        assert _chance_of(tau, 6) == pytest.approx(as_far)


def test_a_fall_is_found_too():
    trend = trend_of(RISING[::-1])
    assert not trend.rises
    assert trend.first_s > trend.last_s


def test_noise_and_jumps_and_turns_of_workers_are_no_trend():
    jumps = 0
    for seed in range(40):
        noise = np.random.default_rng(seed).gamma(20, 0.05, 300)
        assert trend_of(noise) is None
        assert trend_of(np.tile([0.3, 0.0, 0.0, 0.0], 70) + 0.01 * noise[:280]) is None
        jumps += trend_of(noise + np.repeat([0.0, 0.6], 150)) is not None
    assert jumps <= 2


def test_correlated_noise_seldom_passes_for_a_trend():
    found = 0
    for seed in range(200):
        random, value, values = np.random.default_rng(seed), 0.0, []
        for _ in range(300):
            value = 0.8 * value + random.normal(0, 0.1)
            values.append(1 + value)
        found += trend_of(values) is not None
    assert found <= 4


def test_the_scatter_of_a_rise_is_what_is_left_without_it():
    random = np.random.default_rng(1)
    rising = np.array(RISING) + random.normal(0, 0.001, len(RISING))
    sample = sample_of(rising)
    assert sample.flags == (SLOWER,)
    assert math.sqrt(sample.variance) == pytest.approx(0.001, rel=0.3)
    assert sample.n_eff > len(rising) / 4
    assert sample_of(rising[::-1]).flags == (FASTER,)


def test_a_rise_goes_on_and_is_bounded_from_below_only(measured):
    launches = [measured(RISING, warmup_s=[0.004], restart_s=0.01) for _ in range(2)]
    projection = project(launches, RunSizes(epochs=1, train_batches=1200))
    assert projection.epoch.mean == pytest.approx(185, rel=0.03)
    assert 60 < projection.epoch.low < 100  # as slow from here as the last step was
    assert projection.epoch.high == math.inf
    assert LOW_CONFIDENCE in projection.flags
    assert projection.trends


def test_a_fall_is_bounded_by_what_was_seen(measured):
    falling = RISING[::-1]
    projection = project([measured(falling)], RunSizes(epochs=1, train_batches=1200))
    assert sum(falling) * 0.8 < projection.epoch.low < projection.epoch.mean
    assert projection.epoch.mean == pytest.approx(sum(falling) + 900 * falling[-1], rel=0.1)
    assert projection.epoch.high < math.inf


def test_a_whole_epoch_that_was_seen_needs_no_trend(measured):
    seen = measured(RISING, warmup_s=[0.004], epoch_complete=True, epoch_batches=300,
                    first_batch_s=0.004, restart_s=0.004, epoch_s=0.004 + sum(RISING))  # fmt: skip
    projection = project([seen, seen], RunSizes(epochs=2, train_batches=900))
    assert projection.sizes.train_batches == 300
    assert projection.epoch.mean == pytest.approx(sum(RISING), rel=0.02)
    assert projection.epoch.high < 2 * projection.epoch.mean
    assert SLOWER not in projection.flags


def test_an_epoch_within_the_window_is_no_longer_than_it():
    trend = trend_of(RISING)
    epoch = trending_epoch(trend, before=1, batches=300)
    assert epoch.mean_s == pytest.approx((0.004 + sum(RISING)) / 300, rel=0.02)
    assert epoch.low_s == pytest.approx(epoch.mean_s)
