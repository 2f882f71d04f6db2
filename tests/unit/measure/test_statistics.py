import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctrkit.core.launch_spread import SHIPPED, LaunchSpread
from ctrkit.measure.quantiles import t_quantile
from ctrkit.measure.samples import HEAVY_TAIL, NOT_STEADY, Sample, effective_sample_size, sample_of
from ctrkit.measure.statistics import (
    Interval,
    event_interval,
    interval,
    launches_differ,
    mean_interval,
    prediction_interval,
    total,
)


def ar1(rho, n, seed, sd=0.1, mean=1.0):
    random = np.random.default_rng(seed)
    noise = random.normal(0, sd * math.sqrt(1 - rho**2), n)
    values = np.empty(n)
    values[0] = random.normal(0, sd)
    for i in range(1, n):
        values[i] = rho * values[i - 1] + noise[i]
    return mean + values


@pytest.mark.parametrize(
    ("rho", "low", "high"), [(0.0, 80, 200), (0.9, 2, 20), (0.97, 1, 8), (-0.9, 150, 200)]
)
def test_effective_sample_size_follows_the_autocorrelation(rho, low, high):
    sizes = [effective_sample_size(ar1(rho, 200, seed)) for seed in range(40)]
    assert low <= np.median(sizes) <= high
    assert all(1 <= size <= 200 for size in sizes)


def test_constant_and_few_steps_count_in_full():
    assert effective_sample_size([0.5] * 30) == 30
    assert effective_sample_size([1.0, 2.0, 3.0]) == 3
    assert effective_sample_size([]) == 0


@pytest.mark.parametrize("rho", [0.0, 0.9, 0.97])
def test_the_mean_of_correlated_steps_is_not_trusted_more_than_it_may_be(rho):
    samples = [sample_of(ar1(rho, 60, seed)) for seed in range(200)]
    claimed = np.mean([s.variance / s.n_eff for s in samples])
    true = np.mean([(s.mean - 1) ** 2 for s in samples])
    assert 0.9 * true <= claimed <= 4 * true


def test_batch_means_see_what_the_first_lag_does_not():
    slow_waves = 1 + 0.2 * np.sin(np.arange(256) / 256 * 4 * np.pi)
    noisy = slow_waves + np.random.default_rng(0).normal(0, 0.3, 256)
    assert effective_sample_size(noisy) < 160


@given(st.lists(st.floats(0.001, 100), min_size=1, max_size=60))
def test_a_sample_is_worth_between_one_step_and_all(values):
    sample = sample_of(values)
    assert 1 <= sample.n_eff <= sample.n == len(values)
    assert min(values) <= sample.mean * (1 + 1e-9)
    assert sample.mean <= max(values) * (1 + 1e-9)


def test_a_sample_of_nothing_is_an_error():
    with pytest.raises(ValueError):
        sample_of([])


def test_the_windows_own_mean_wins():
    assert sample_of([1.0, 1.0], mean_s=1.5).mean == 1.5


def test_flags_of_a_heavy_tail_and_of_a_change_of_pace():
    random = np.random.default_rng(1)
    steady = 1 + random.normal(0, 0.02, 100)
    tail = steady.copy()
    tail[[20, 70]] = 30
    changed = np.concatenate([steady[:50], steady[50:] * 1.3])
    assert sample_of(steady).flags == ()
    assert HEAVY_TAIL in sample_of(tail).flags
    assert NOT_STEADY in sample_of(changed).flags


def test_one_slow_step_among_many_is_a_heavy_tail_only_if_it_matters():
    steps = 1 + np.random.default_rng(3).normal(0, 0.02, 100)
    steps[50] = 2.5
    assert HEAVY_TAIL in sample_of(steps).flags
    steps[50] = 1.5
    assert sample_of(steps).flags == ()


def test_bursts_of_the_workers_turn_are_neither_a_tail_nor_noise():
    # three batches wait in the queue, then the fourth is waited for; the window ends amid a turn
    bursts = [0.1, 0.1, 0.1, 3.7] * 15 + [0.1, 0.1]
    told = sample_of(bursts, cycle=4)
    assert HEAVY_TAIL in sample_of(bursts).flags
    assert told.flags == ()
    assert told.mean == pytest.approx(1.0)
    assert told.variance == pytest.approx(0.0, abs=1e-20)
    assert told.n == len(bursts)
    assert sample_of(bursts, mean_s=2 * np.mean(bursts), cycle=4).mean == pytest.approx(2.0)


@given(st.lists(st.floats(0.5, 2), min_size=2, max_size=40), st.integers(2, 8))
def test_a_window_of_less_than_two_turns_is_taken_as_it_is(values, cycle):
    if len(values) < 2 * cycle:
        assert sample_of(values, cycle=cycle) == sample_of(values)
    else:
        assert 1 <= sample_of(values, cycle=cycle).n_eff <= len(values)


def test_few_flags_on_independent_steps():
    random = np.random.default_rng(2)
    flagged = sum(bool(sample_of(random.gamma(25, 0.04, 60)).flags) for _ in range(200))
    assert flagged <= 10


def test_one_launch_is_as_uncertain_as_assumed():
    sample = Sample(mean=1.0, variance=0.0, n=10_000, n_eff=10_000)
    half = prediction_interval([sample], 10_000).half
    # s_b of the mean, one launch known and one to come, t with 2 degrees of freedom
    assert half == pytest.approx(4.303 * SHIPPED.relative * math.sqrt(2), rel=0.01)
    told = LaunchSpread(relative=0.01, weight=10, pairs=20, own_pairs=8)
    calm = prediction_interval([sample], 10_000, spread=told).half
    assert calm == pytest.approx(2.228 * 0.01 * math.sqrt(2), rel=0.01)


def test_agreeing_launches_narrow_the_interval_and_differing_ones_widen_it():
    def launches(*means):
        return [Sample(mean=m, variance=1e-6, n=50, n_eff=50) for m in means]

    one = prediction_interval(launches(1.0), 500).half
    agreeing = prediction_interval(launches(1.0, 1.001, 0.999), 500).half
    differing = prediction_interval(launches(0.8, 1.2, 1.0), 500).half
    assert agreeing < one < differing


def launches_of(*means, variance=1e-6):
    return [Sample(mean=m, variance=variance, n=50, n_eff=50) for m in means]


def test_launches_that_differ_by_more_than_is_known_before_are_believed():
    differing = launches_of(0.85, 1.15, 1.0)
    calm = LaunchSpread(relative=0.01, weight=20, pairs=20, own_pairs=20)
    # sd 0.15 between the three and the one to come, however sure the calm was: it counts for half
    least = t_quantile(0.95, 12) * 0.15 * math.sqrt(1 + 1 / 3)
    assert prediction_interval(differing, 500, spread=calm).half == pytest.approx(least, rel=0.01)
    assert prediction_interval(differing, 500).half > least


def test_scatter_of_the_steps_is_not_taken_for_launches_that_differ():
    noisy = launches_of(0.98, 1.02, 1.0, variance=0.02)  # sd 2 % each by the steps alone
    calm = LaunchSpread(relative=0.001, weight=20)
    assert prediction_interval(noisy, 500, spread=calm).half < 0.05
    assert not launches_differ([noisy])


@pytest.mark.parametrize("count", [2, 3, 6])
def test_launches_are_said_to_differ_beyond_chance(count):
    random = np.random.default_rng(3)

    def share(spread):
        drawn = random.normal(1, spread, (1000, count))
        return sum(launches_differ([launches_of(*means)]) for means in drawn) / 1000

    assert share(SHIPPED.relative) < 0.07  # 5 % is nominal
    assert share(0.1) > (0.3 if count == 2 else 0.5)
    assert not launches_differ([launches_of(1.0), launches_of(2.0)])  # one launch tells nothing
    assert not launches_differ([])


def test_within_launch_noise_counts_for_the_steps_ahead_too():
    noisy = [Sample(mean=1.0, variance=0.25, n=100, n_eff=100)]
    assert prediction_interval(noisy, 5).half > prediction_interval(noisy, 5000).half
    assert mean_interval(noisy).half < prediction_interval(noisy, 5000).half


def simulated_coverage(seeds, launches, rho):
    """Share of 95 % intervals that hold the mean of a future launch of 400 steps."""
    held = 0
    for seed in range(seeds):
        random = np.random.default_rng([7, seed])
        means = random.normal(1, 0.02, launches + 1)
        samples = [
            sample_of(ar1(rho, 40, seed * 100 + i, mean=mean)) for i, mean in enumerate(means[:-1])
        ]
        future = ar1(rho, 400, seed * 100 + 99, mean=means[-1]).mean()
        predicted = prediction_interval(samples, 400)
        held += predicted.low <= future <= predicted.high
    return held / seeds


@pytest.mark.parametrize("launches", [1, 2, 3])
@pytest.mark.parametrize("rho", [0.0, 0.6, 0.95])
def test_intervals_cover_a_future_launch(launches, rho):
    assert simulated_coverage(100, launches, rho) >= 0.9


def test_events_are_moderated_by_what_is_assumed_of_them():
    once = event_interval([2.0])
    assert once.mean == 2.0
    assert once.half == pytest.approx(2.776 * 0.25 * 2 * math.sqrt(2), rel=0.01)
    assert event_interval([2.0] * 20).half < once.half / 2


@settings(max_examples=50)
@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 10)), min_size=1, max_size=6))
def test_totals_add_means_and_never_claim_more_than_the_sum_of_the_halves(parts):
    intervals = [interval(mean, half) for mean, half in parts]
    whole = total(intervals)
    assert whole.mean == pytest.approx(sum(mean for mean, _ in parts))
    assert whole.half <= sum(i.half for i in intervals) + 1e-9
    assert 0 <= whole.low <= whole.mean <= whole.high


def test_scaling_scales_all_three():
    assert Interval(mean=2, low=1, high=3).scaled(4) == Interval(mean=8, low=4, high=12)
