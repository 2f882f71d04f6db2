"""Means of step times with honest intervals: within a launch and between launches.

Small samples say little about their own spread. Wherever one is used, its variance is *moderated*:
averaged with a stated assumption that weighs as much as a few observations, as in Smyth, "Linear
models and empirical Bayes methods" (2004), section 4. The assumptions are the constants below; a
measured spread soon outweighs them. Totals are projected from means, never from medians.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
#: Relative sd between fresh launches of one cell, until several launches have shown it. Assumed,
#: not measured: it is the size from which two launches of one cell count as drift (3 %).
ASSUMED_LAUNCH_SPREAD = 0.03
ASSUMED_LAUNCH_WEIGHT = 4.0
#: Relative sd of the steps of one launch: matters only while there are but a few of them.
ASSUMED_STEP_SPREAD = 0.05
ASSUMED_STEP_WEIGHT = 2.0
#: Relative sd of what happens once an epoch or once a run: restarts, checkpoints, start-ups.
ASSUMED_EVENT_SPREAD = 0.25
ASSUMED_EVENT_WEIGHT = 4.0

PROVISIONAL, HEAVY_TAIL, NOT_STEADY = "provisional", "heavy tail", "not steady"
#: Below this many steps no autocorrelation can be estimated, and none is assumed.
_LEAST_FOR_AUTOCORRELATION = 8
_LEAST_FOR_BATCH_MEANS = 16


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean in seconds and its 95 % bounds; `low` is never negative."""

    mean: float
    low: float
    high: float

    @property
    def half(self) -> float:
        """Half the width towards the upper bound."""
        return self.high - self.mean

    @property
    def relative_half(self) -> float:
        """`half` as a share of the mean; 0 for a mean of 0."""
        return self.half / self.mean if self.mean > 0 else 0.0

    def scaled(self, factor: float) -> Interval:
        """The interval of `factor` times the quantity: errors are common to all, so they add up."""
        return Interval(mean=self.mean * factor, low=self.low * factor, high=self.high * factor)


ZERO = Interval(mean=0.0, low=0.0, high=0.0)


def interval(mean: float, half: float) -> Interval:
    """The interval `mean` plus and minus `half`, cut at 0 (what is measured are durations)."""
    return Interval(mean=mean, low=max(0.0, mean - half), high=mean + half)


def total(parts: Sequence[Interval]) -> Interval:
    """The interval of a sum of independent parts: half-widths add in quadrature."""
    return interval(sum(p.mean for p in parts), math.sqrt(sum(p.half**2 for p in parts)))


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The steps of one launch in short: seconds, and how many independent steps they are worth."""

    mean: float
    variance: float
    n: int
    n_eff: float
    flags: tuple[str, ...] = ()


def sample_of(values_s: Sequence[float], mean_s: float | None = None) -> Sample:
    """A launch's steps in short.

    Args:
        values_s: seconds of each step, in order; at least one.
        mean_s: the mean where it is known better than from the values: the window's wall time,
            synchronised at its ends only, over its steps.
    """
    values = np.asarray(values_s, dtype=np.float64)
    if values.size == 0:
        raise ValueError("no steps to take a mean of")
    variance = float(values.var(ddof=1)) if values.size > 1 else 0.0
    flags = tuple(
        flag
        for flag, raised in ((HEAVY_TAIL, _heavy_tail(values)), (NOT_STEADY, _not_steady(values)))
        if raised
    )
    mean = float(values.mean()) if mean_s is None else mean_s
    n_eff = effective_sample_size(values)
    return Sample(mean=mean, variance=variance, n=int(values.size), n_eff=n_eff, flags=flags)


def effective_sample_size(values_s: Sequence[float] | np.ndarray) -> float:
    """How many independent steps have a mean as uncertain as that of these correlated ones.

    The smaller of two estimates, so that the wider interval counts. AR(1): n (1 - r) / (1 + r),
    with r the lag-1 autocorrelation, its bias of -(1 + 3 r) / n taken back (Marriott & Pope,
    Biometrika 41, 1954) and never negative. Batch means (Law, "Simulation Modeling and Analysis",
    section 9.5): about sqrt(n) batches; where their means vary more than independent steps would,
    that ratio divides n.
    """
    values = np.asarray(values_s, dtype=np.float64)
    n = values.size
    centred = values - values.mean() if n else values
    power = float(centred @ centred)
    if n < _LEAST_FOR_AUTOCORRELATION or power <= 1e-24 * max(1.0, float(values @ values)):
        return float(n)
    r = float(centred[1:] @ centred[:-1]) / power
    r = min(max(r + (1 + 3 * r) / n, 0.0), 0.99)
    by_ar1 = n * (1 - r) / (1 + r)
    return max(1.0, min(float(n), by_ar1, _by_batch_means(values)))


def _by_batch_means(values: np.ndarray) -> float:
    n = values.size
    if n < _LEAST_FOR_BATCH_MEANS:
        return float(n)
    length = math.isqrt(n)
    means = values[: n // length * length].reshape(-1, length).mean(axis=1)
    ratio = length * float(means.var(ddof=1)) / float(values.var(ddof=1))
    return n / max(1.0, ratio)


def _heavy_tail(values: np.ndarray) -> bool:
    """Whether steps of over five medians make up a tenth of the time: more may come, unseen."""
    if values.size < 3:
        return False
    slow = values > 5 * np.median(values)
    return bool(values[slow].sum() > 0.1 * values.sum())


def _not_steady(values: np.ndarray) -> bool:
    """Whether the two halves differ by over 5 % and by more than chance explains (at 1 %)."""
    if values.size < _LEAST_FOR_AUTOCORRELATION:
        return False
    first, second = np.array_split(values, 2)
    # a change of pace must not pass for autocorrelation: each half about its own mean
    rest = np.concatenate([first - first.mean(), second - second.mean()])
    worth = effective_sample_size(rest) / values.size
    pooled = (first.var(ddof=1) + second.var(ddof=1)) / 2
    error = math.sqrt(pooled * (1 / first.size + 1 / second.size) / worth)
    difference = abs(float(first.mean() - second.mean()))
    freedom = max(1.0, values.size * worth - 2)
    return difference > 0.05 * float(values.mean()) and difference > _t(0.99, freedom) * error


def prediction_interval(launches: Sequence[Sample], horizon_steps: float) -> Interval:
    """Mean step time of one future run of `horizon_steps` steps, as a 95 % prediction interval.

    The variance is s_b^2 (1 + 1/L) + s_w^2 (1/n_eff + 1/N_eff): L launches and the one to come
    differ by s_b, the n measured and the N projected steps within a launch by s_w (DESIGN, section
    6). The two parts have degrees of freedom of their own, combined after Welch and Satterthwaite.
    """
    launched = len(launches)
    if launched == 0:
        raise ValueError("no launches to predict from")
    mean = sum(s.mean for s in launches) / launched
    between, between_freedom = _between_launches(launches, mean)
    within, within_freedom = _within_launches(launches, mean)
    n_eff = sum(s.n_eff for s in launches)
    worth = n_eff / sum(s.n for s in launches)
    ahead = 1 / max(1.0, horizon_steps * worth)
    parts = [(between * (1 + 1 / launched), between_freedom)]
    parts.append((within * (1 / n_eff + ahead), within_freedom))
    return interval(mean, _half_width(parts))


def mean_interval(launches: Sequence[Sample]) -> Interval:
    """The cell's own mean step time, to compare cells by: the future run's own scatter left out."""
    mean = sum(s.mean for s in launches) / len(launches)
    between, between_freedom = _between_launches(launches, mean)
    within, within_freedom = _within_launches(launches, mean)
    parts = [(between / len(launches), between_freedom)]
    parts.append((within / sum(s.n_eff for s in launches), within_freedom))
    return interval(mean, _half_width(parts))


def event_interval(values_s: Sequence[float]) -> Interval:
    """One future event of a kind of which a few were timed: a restart, a checkpoint, a start-up."""
    n = len(values_s)
    mean = sum(values_s) / n
    own = sum((v - mean) ** 2 for v in values_s)
    freedom = ASSUMED_EVENT_WEIGHT + n - 1
    variance = (ASSUMED_EVENT_WEIGHT * (ASSUMED_EVENT_SPREAD * mean) ** 2 + own) / freedom
    return interval(mean, _t(CONFIDENCE, freedom) * math.sqrt(variance * (1 + 1 / n)))


def _between_launches(launches: Sequence[Sample], mean: float) -> tuple[float, float]:
    """Variance between launches and its degrees of freedom, the assumed spread included."""
    own = sum((s.mean - mean) ** 2 for s in launches)
    # what the launches' means differ by within-launch noise alone is counted there already
    explained = sum(s.variance / s.n_eff for s in launches) / len(launches)
    own = max(0.0, own - (len(launches) - 1) * explained)
    freedom = ASSUMED_LAUNCH_WEIGHT + len(launches) - 1
    return (ASSUMED_LAUNCH_WEIGHT * (ASSUMED_LAUNCH_SPREAD * mean) ** 2 + own) / freedom, freedom


def _within_launches(launches: Sequence[Sample], mean: float) -> tuple[float, float]:
    """Variance of the steps of a launch and its degrees of freedom, the assumed one included."""
    weights = [max(0.0, s.n_eff - 1) for s in launches]
    own = sum(w * s.variance for w, s in zip(weights, launches, strict=True))
    freedom = ASSUMED_STEP_WEIGHT + sum(weights)
    return (ASSUMED_STEP_WEIGHT * (ASSUMED_STEP_SPREAD * mean) ** 2 + own) / freedom, freedom


def _half_width(parts: Sequence[tuple[float, float]]) -> float:
    variance = sum(v for v, _ in parts)
    if variance <= 0:
        return 0.0
    freedom = variance**2 / sum(v**2 / f for v, f in parts)
    return _t(CONFIDENCE, freedom) * math.sqrt(variance)


def _t(confidence: float, freedom: float) -> float:
    """Two-sided quantile of Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + confidence) / 2))
