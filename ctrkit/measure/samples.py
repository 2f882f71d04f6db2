"""Summarises the steps of one launch: their mean, their scatter, and outliers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ctrkit.measure.quantiles import t_quantile
from ctrkit.measure.trends import trend_of, without_trend

HEAVY_TAIL, NOT_STEADY = "heavy tail", "not steady"
SLOWER, FASTER = "slower and slower", "faster and faster"
#: With fewer steps, no autocorrelation can be estimated, and none is assumed.
_LEAST_FOR_AUTOCORRELATION = 8
_LEAST_FOR_BATCH_MEANS = 16
#: With fewer steps, a single one may well make up most of the scatter.
_LEAST_FOR_ONE_SLOW_STEP = 30
#: The correction of the scatter never counts the steps as fewer independent ones than this.
_LEAST_WORTH = 2.0


#: A step counts as part of a slow stretch if it takes this share longer than the median ...
_SLOW_SHARE = 0.3
#: ... and is so many standard deviations above it. The standard deviation is estimated as 1.4826
#: times the median of the absolute deviations, which is its value for a normal distribution.
_SLOW_SDS, _SD_OF_MEDIAN = 4.0, 1.4826
#: Fewer slow steps in a row may be chance. If more than this share of the window is slow, it is
#: unclear which pace is the usual one.
_LEAST_STRETCH, _MOST_OF_WINDOW = 3, 0.4


@dataclass(frozen=True, kw_only=True)
class SlowSteps:
    """The few slow steps of a launch, or stretches of them, that may come more often in a run.

    `excess_s` is how much longer than usual each took on average, `most_s` how much longer the
    slowest may take. One that was not seen may exceed the usual by `may_grow` times `excess_s`.
    """

    count: int
    excess_s: float
    most_s: float
    may_grow: float = 2.0


@dataclass(frozen=True, kw_only=True)
class SlopeLine:
    """A line fitted to a window's steps: its slope in seconds per step, and the standard error."""

    slope_s: float
    error_s: float


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Summary of one launch's steps: seconds, and how many independent steps they are worth.

    `slow` is set if the tail is heavy. `change` is how much the second half of the window differs
    from the first, as a share of the mean; 0 if the steps are steady. `line` is None if there are
    too few steps for one.
    """

    mean: float
    variance: float
    n: int
    n_eff: float
    flags: tuple[str, ...] = ()
    slow: SlowSteps | None = None
    change: float = 0.0
    line: SlopeLine | None = None

    def has(self, flag: str) -> bool:
        """Whether the steps have this flag."""
        return flag in self.flags


def sample_of(values_s: Sequence[float], mean_s: float | None = None, *, cycle: int = 1) -> Sample:
    """Summarise a launch's steps.

    Args:
        values_s: seconds of each step, in order; at least one.
        mean_s: the mean, if known better than from the values: the window's wall time, synchronised
            only at its ends, per step.
        cycle: steps in which every worker delivers once. Waits come in bursts of that period, so
            only whole cycles are used, and the scatter is that of their means.
    """
    values = np.asarray(values_s, dtype=np.float64)
    if values.size == 0:
        raise ValueError("no steps to take a mean of")
    mean = float(values.mean()) if mean_s is None else mean_s
    n = int(values.size)
    cycles = n // cycle if cycle > 1 else 0
    if cycles < 2:
        cycle = 1
    else:
        whole = values[: cycles * cycle]
        mean *= float(whole.mean() / values.mean()) if values.mean() > 0 else 1.0
        values = whole.reshape(cycles, cycle).mean(axis=1)
    trend, line = trend_of(values), _line_through(values, cycle)
    if trend is not None:  # a rise is no autocorrelation: the scatter is what remains without it
        values = without_trend(values, trend)
    slow = _slow_steps(values) or _slow_stretches(values)
    change = _change_of_pace(values) if trend is None else 0.0
    raised = {
        HEAVY_TAIL: slow is not None,
        NOT_STEADY: change > 0,
        SLOWER: trend is not None and trend.rises,
        FASTER: trend is not None and not trend.rises,
    }
    flags = tuple(flag for flag, is_raised in raised.items() if is_raised)
    n_eff = effective_sample_size(values)
    # around their own mean, steps worth n_eff independent ones scatter too little, by 1 / n_eff
    short = max(n_eff, min(_LEAST_WORTH, float(values.size)))
    variance = float(values.var()) * short / (short - 1) if values.size > 1 else 0.0
    # the mean of a cycle counts as all its steps
    worth = n_eff * n / values.size
    return Sample(
        mean=mean, variance=variance * worth / n_eff, n=n, n_eff=worth, flags=flags, slow=slow,
        change=change, line=line,
    )  # fmt: skip


def effective_sample_size(values_s: Sequence[float] | np.ndarray) -> float:
    """How many independent steps would have a mean as uncertain as these correlated ones.

    It is the smaller of two estimates, so that the wider interval counts. AR(1): n (1 - r) / (1 +
    r), with r the lag-1 autocorrelation, corrected for its bias of -(1 + 3 r) / n (Marriott & Pope,
    Biometrika 41, 1954) and increased by half its standard error sqrt((1 - r^2) / n), since a short
    window hides more than it shows; never negative. Batch means (Law, "Simulation Modeling and
    Analysis", section 9.5): about sqrt(n) batches; if their means vary more than those of
    independent steps, n is divided by that ratio.
    """
    values = np.asarray(values_s, dtype=np.float64)
    n = values.size
    centred = values - values.mean() if n else values
    power = float(centred @ centred)
    if n < _LEAST_FOR_AUTOCORRELATION or power <= 1e-24 * max(1.0, float(values @ values)):
        return float(n)
    r = float(centred[1:] @ centred[:-1]) / power
    r = min(max(r + (1 + 3 * r) / n, 0.0), 0.99)
    r = min(r + math.sqrt((1 - r * r) / n) / 2, 0.99)
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


def _slow_steps(values: np.ndarray) -> SlowSteps | None:
    """The few slow steps that dominate the mean, if any: more or slower ones may come unseen.

    That is the case if steps of over three medians take a tenth of the time, or if the slowest step
    alone makes up most of the scatter and moves the mean by over 1 %.
    """
    if values.size < 3:
        return None
    slow = values > 3 * np.median(values)
    excess = float(values.max() - values.mean())
    scatter = float(((values - values.mean()) ** 2).sum())
    alone = (
        values.size >= _LEAST_FOR_ONE_SLOW_STEP
        and excess**2 > 0.5 * scatter
        and excess > 0.01 * float(values.sum())
    )
    if not alone and values[slow].sum() <= 0.1 * values.sum():
        return None
    if not slow.any():
        slow = values == values.max()
    others = float(values[~slow].mean())
    return SlowSteps(
        count=int(slow.sum()),
        excess_s=float(values[slow].mean()) - others,
        most_s=float(values.max()) - others,
    )


def _slow_stretches(values: np.ndarray) -> SlowSteps | None:
    """Stretches of slow steps among steady ones; None if there are none.

    A stretch at an end of the window may go on outside it, so it may be twice as long as seen.
    """
    if values.size < _LEAST_FOR_BATCH_MEANS:
        return None
    usual = float(np.median(values))
    deviation = _SD_OF_MEDIAN * float(np.median(np.abs(values - usual)))
    is_slow = values > usual + max(_SLOW_SHARE * usual, _SLOW_SDS * deviation)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], is_slow, [False]]).astype(int)))
    stretches = edges.reshape(-1, 2)
    lengths = stretches[:, 1] - stretches[:, 0]
    if not lengths.size or lengths.max() < _LEAST_STRETCH or is_slow.mean() > _MOST_OF_WINDOW:
        return None
    excess = [float((values[begin:end] - usual).sum()) for begin, end in stretches]
    cut = [begin == 0 or end == values.size for begin, end in stretches]
    most = max(s * (2 if is_cut else 1) for s, is_cut in zip(excess, cut, strict=True))
    return SlowSteps(
        count=len(excess), excess_s=sum(excess) / len(excess), most_s=most, may_grow=1.0
    )


def _line_through(values: np.ndarray, cycle: int) -> SlopeLine | None:
    """The least-squares line; its standard error allows for autocorrelation. None for few steps."""
    n = values.size
    if n < _LEAST_FOR_AUTOCORRELATION:
        return None
    places = np.arange(n) - (n - 1) / 2
    squares = float(places @ places)
    slope = float(places @ values) / squares
    rest = values - values.mean() - slope * places
    variance = float(rest @ rest) / (n - 2) * n / effective_sample_size(rest)
    return SlopeLine(slope_s=slope / cycle, error_s=math.sqrt(variance / squares) / cycle)


def _change_of_pace(values: np.ndarray) -> float:
    """By which share the two halves differ; 0 unless over 5 % and more than chance (1 %)."""
    if values.size < _LEAST_FOR_AUTOCORRELATION:
        return 0.0
    first, second = np.array_split(values, 2)
    # a change of pace must not look like autocorrelation: center each half separately
    rest = np.concatenate([first - first.mean(), second - second.mean()])
    worth = effective_sample_size(rest) / values.size
    pooled = (first.var(ddof=1) + second.var(ddof=1)) / 2
    error = math.sqrt(pooled * (1 / first.size + 1 / second.size) / worth)
    difference = abs(float(first.mean() - second.mean()))
    freedom = max(1.0, values.size * worth - 2)
    mean = float(values.mean())
    if difference <= 0.05 * mean or difference <= t_quantile(0.99, freedom) * error:
        return 0.0
    return difference / mean
