"""Whether a machine changed its pace: rates over simulated probes, whatever launches differ by."""

import numpy as np
import pytest

from ctrkit.core.launch_spread import SHIPPED, LaunchSpread
from ctrkit.measure.drift import Launched, drift_factor
from ctrkit.measure.samples import Sample

STEPS, STEP_SPREAD = 60, 0.15


def steps_of(random, mean):
    error = STEP_SPREAD / STEPS**0.5
    scatter = random.chisquare(STEPS - 1) / (STEPS - 1)
    return Sample(
        mean=mean * random.normal(1, error),
        variance=(STEP_SPREAD * mean) ** 2 * scatter,
        n=STEPS,
        n_eff=0.85 * STEPS,
    )


def drifts(random, launch_sd, drift, cells=3, each=3):
    """Whether a probe says so: a cell first and last, and some launches of others between them."""

    def launched(at):
        pace = max(0.3, random.normal(1, launch_sd)) * (1 + drift * at)
        return Launched(at=at, sample=steps_of(random, pace))

    first, last = launched(0.0), launched(1.0)
    count = cells * each
    between = [launched((i + 1) / (count + 1)) for i in range(count)]
    groups = [[first], *(between[i::cells] for i in range(cells))]
    return drift_factor(first.sample, last.sample, groups, SHIPPED) is not None


def rate(launch_sd, drift, **probe):
    random = np.random.default_rng([round(1000 * launch_sd), round(100 * drift), 5])
    return np.mean([drifts(random, launch_sd, drift, **probe) for _ in range(300)])


@pytest.mark.parametrize("launch_sd", [0.01, 0.03, 0.05, 0.1, 0.15])
def test_launches_that_differ_are_no_drift(launch_sd):
    assert rate(launch_sd, 0.0) <= 0.08  # 5 % is nominal
    assert rate(launch_sd, 0.0, cells=1, each=0) <= 0.12


@pytest.mark.parametrize(
    ("launch_sd", "drift", "least"),
    [(0.01, 0.2, 0.95), (0.03, 0.2, 0.75), (0.05, 0.5, 0.9), (0.1, 0.5, 0.55)],
)
def test_a_machine_that_gets_slower_is_found(launch_sd, drift, least):
    assert rate(launch_sd, drift) >= least


def test_a_difference_below_three_percent_is_none_however_sure():
    def exact(mean):
        return Sample(mean=mean, variance=0.0, n=50, n_eff=50)

    known = LaunchSpread(relative=0.0, weight=20.0)
    assert drift_factor(exact(1.0), exact(1.02), [], known) is None
    assert drift_factor(exact(1.0), exact(1.04), [], known) == pytest.approx(1.04)
    assert drift_factor(exact(1.04), exact(1.0), [], known) == pytest.approx(1 / 1.04)


def test_what_the_steps_scatter_explains_is_no_drift():
    def noisy(mean):
        return Sample(mean=mean, variance=(0.3 * mean) ** 2, n=50, n_eff=50)

    known = LaunchSpread(relative=0.001, weight=20.0)
    assert drift_factor(noisy(1.0), noisy(1.04), [], known) is None


def test_the_drift_itself_does_not_pass_for_launches_that_differ():
    """The others got slower at the same rate: without it, they agree."""

    def exact(at):
        return Launched(at=at, sample=Sample(mean=1.3**at, variance=0.0, n=50, n_eff=50))

    groups = [[exact(i / 5) for i in (1, 2, 3, 4)]]
    found = drift_factor(exact(0).sample, exact(1).sample, groups, SHIPPED)
    assert found == pytest.approx(1.3)
