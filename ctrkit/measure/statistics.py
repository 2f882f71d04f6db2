"""Means of step times with honest intervals: within a launch and between launches.

Small samples say little about their own spread. Wherever one is used, its variance is *moderated*:
averaged with a stated assumption that weighs as much as a few observations, as in Smyth, "Linear
models and empirical Bayes methods" (2004), section 4. The assumptions are the constants below and,
for the spread between launches, `core/launch_spread.py`; a measured spread soon outweighs them.
Totals are projected from means, never from medians.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ctrkit.core.launch_spread import SHIPPED, LaunchSpread
from ctrkit.measure.trends import trend_of, without_trend

CONFIDENCE = 0.95
#: Relative sd of the steps of one launch: matters only while there are but a few of them.
ASSUMED_STEP_SPREAD = 0.05
ASSUMED_STEP_WEIGHT = 2.0
#: Relative sd of what happens once an epoch or once a run: restarts, checkpoints, start-ups.
ASSUMED_EVENT_SPREAD = 0.25
ASSUMED_EVENT_WEIGHT = 4.0

PROVISIONAL, HEAVY_TAIL, NOT_STEADY = "provisional", "heavy tail", "not steady"
SLOWER, FASTER = "slower and slower", "faster and faster"
DRIFT = "drift"
#: The same cell, launched first and again last, that differs by more than this has drifted.
_DRIFTED = 0.03
#: Launches are said to differ where chance makes them differ so much in one of a hundred cases.
_BY_CHANCE = 0.01
#: Below this many steps no autocorrelation can be estimated, and none is assumed.
_LEAST_FOR_AUTOCORRELATION = 8
_LEAST_FOR_BATCH_MEANS = 16
#: Of fewer steps, one may well make up most of the scatter.
_LEAST_FOR_ONE_SLOW_STEP = 30
#: However correlated, steps count as so many independent ones when their scatter is corrected.
_LEAST_WORTH = 2.0


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean in seconds and its 95 % bounds.

    `low` is above 0 where the mean is; `high` is infinite where nothing bounds it from above.
    """

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
    """The interval `mean` plus and minus `half`; what takes time never takes none.

    Beyond half of the mean the lower bound is the hyperbola that goes on from there as steeply.
    """
    low = mean - half if half <= mean / 2 else mean**2 / (4 * half)
    return Interval(mean=mean, low=low, high=mean + half)


def total(parts: Sequence[Interval]) -> Interval:
    """The interval of a sum of independent parts: widths add in quadrature, each side's own."""
    mean = sum(p.mean for p in parts)
    below = math.sqrt(sum((p.mean - p.low) ** 2 for p in parts))
    above = math.sqrt(sum(p.half**2 for p in parts))
    return Interval(mean=mean, low=mean - below, high=mean + above)


@dataclass(frozen=True, kw_only=True)
class SlowSteps:
    """The few steps that make the mean of a launch with a heavy tail.

    `excess_s` is what each took longer than the others, in the mean; `most_s` what the slowest did.
    """

    count: int
    excess_s: float
    most_s: float


@dataclass(frozen=True, kw_only=True)
class Content:
    """What the batches themselves make their steps differ by, apart from noise.

    Args:
        share: of the variance of a step within a launch.
        distinct: batches that were measured, each counted once however many launches saw it.
        batches: of an epoch; a run trains on these, and on no others.
    """

    share: float
    distinct: int
    batches: float


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The steps of one launch in short: seconds, and how many independent steps they are worth.

    `slow` is known where the tail is heavy, `change` where they are not steady: by how much, as a
    share of the mean, the second half of the window differs from the first.
    """

    mean: float
    variance: float
    n: int
    n_eff: float
    flags: tuple[str, ...] = ()
    slow: SlowSteps | None = None
    change: float = 0.0

    def has(self, flag: str) -> bool:
        """Whether this has to be said of the steps."""
        return flag in self.flags


def sample_of(values_s: Sequence[float], mean_s: float | None = None, *, cycle: int = 1) -> Sample:
    """A launch's steps in short.

    Args:
        values_s: seconds of each step, in order; at least one.
        mean_s: the mean where it is known better than from the values: the window's wall time,
            synchronised at its ends only, over its steps.
        cycle: steps in which every worker delivers once. Waits come in bursts of that period, so
            only whole cycles count, and what scatters is their means.
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
    trend = trend_of(values)
    if trend is not None:  # a rise is no autocorrelation: what scatters is what is left without it
        values = without_trend(values, trend)
    slow = _slow_steps(values)
    change = _change_of_pace(values) if trend is None else 0.0
    raised = {
        HEAVY_TAIL: slow is not None,
        NOT_STEADY: change > 0,
        SLOWER: trend is not None and trend.rises,
        FASTER: trend is not None and not trend.rises,
    }
    flags = tuple(flag for flag, is_raised in raised.items() if is_raised)
    n_eff = effective_sample_size(values)
    # about their own mean, steps worth n_eff independent ones scatter too little by 1 / n_eff
    short = max(n_eff, min(_LEAST_WORTH, float(values.size)))
    variance = float(values.var()) * short / (short - 1) if values.size > 1 else 0.0
    # a cycle's mean is worth its steps
    worth = n_eff * n / values.size
    return Sample(
        mean=mean, variance=variance * worth / n_eff, n=n, n_eff=worth, flags=flags, slow=slow,
        change=change,
    )  # fmt: skip


def effective_sample_size(values_s: Sequence[float] | np.ndarray) -> float:
    """How many independent steps have a mean as uncertain as that of these correlated ones.

    The smaller of two estimates, so that the wider interval counts. AR(1): n (1 - r) / (1 + r),
    with r the lag-1 autocorrelation, its bias of -(1 + 3 r) / n taken back (Marriott & Pope,
    Biometrika 41, 1954), raised by half its standard error sqrt((1 - r^2) / n) since a short
    window hides more than it shows, never negative. Batch means (Law, "Simulation Modeling
    and Analysis", section 9.5): about sqrt(n) batches; where their means vary more than independent
    steps would, that ratio divides n.
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
    """The few slow steps that make the mean, if they do: more or slower ones may come unseen.

    Steps of over three medians take a tenth of the time, or the slowest one alone makes up most of
    the scatter and moves the mean by over 1 %.
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


def _change_of_pace(values: np.ndarray) -> float:
    """By what share the two halves differ; 0 unless by over 5 % and by more than chance (1 %)."""
    if values.size < _LEAST_FOR_AUTOCORRELATION:
        return 0.0
    first, second = np.array_split(values, 2)
    # a change of pace must not pass for autocorrelation: each half about its own mean
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


def drifted(first: Sample, last: Sample) -> bool:
    """Whether a cell that was launched first and again last has changed its pace meanwhile.

    By over 3 %, and by more than the scatter of the steps within the two launches explains (at
    1 %): a few noisy steps are no drift.
    """
    difference = abs(math.log(last.mean / first.mean))
    parts = [
        (s.variance / s.n_eff / s.mean**2, max(1.0, s.n_eff - 1))
        for s in (first, last)
        if s.variance > 0
    ]
    variance = sum(v for v, _ in parts)
    if variance <= 0:
        return difference > _DRIFTED
    freedom = variance**2 / sum(v**2 / f for v, f in parts)
    return difference > max(_DRIFTED, t_quantile(0.99, freedom) * math.sqrt(variance))


def prediction_interval(
    launches: Sequence[Sample],
    horizon_steps: float,
    peers: Sequence[Sequence[Sample]] = (),
    *,
    spread: LaunchSpread = SHIPPED,
    content: Content | None = None,
) -> Interval:
    """Mean step time of one future run of `horizon_steps` steps, as a 95 % prediction interval.

    `peers` are launches of other cells, a group for each: they tell how far launches of one cell
    differ, relative to their mean, and nothing else. `spread` is what is assumed of that.

    The variance is s_b^2 (1 + 1/L) + s_w^2 (1/n_eff + 1/N_eff): L launches and the one to come
    differ by s_b, the n measured and the N projected steps within a launch by s_w. A share of s_w^2
    may be due to `content`: that part averages out over the m different batches that were seen,
    not over all steps, and is gone once all B of an epoch were seen: s_c^2 (1/m - 1/B) (sampling
    without replacement, Cochran, "Sampling Techniques", section 2.5). The parts have degrees of
    freedom of their own, combined after Welch and Satterthwaite.
    """
    if not launches:
        raise ValueError("no launches to predict from")
    launched = len(launches)
    mean = sum(s.mean for s in launches) / launched
    noise = 1.0 - (content.share if content is not None else 0.0)
    between, between_freedom = _between_launches(launches, mean, peers, spread, noise)
    within, within_freedom = _within_launches(launches, mean)
    n_eff = _pooled_worth(launches, within)
    worth = n_eff / sum(s.n for s in launches)
    ahead = 1 / max(1.0, horizon_steps * worth)
    parts = [(between * (1 + 1 / launched), between_freedom)]
    parts.append((within * noise * (1 / n_eff + ahead), within_freedom))
    if content is not None and content.share > 0:
        seen = max(1.0, content.distinct * worth)
        unseen = max(0.0, 1 / seen - 1 / max(seen, content.batches * worth))
        freedom = ASSUMED_STEP_WEIGHT + max(0.0, seen - 1)
        parts.append((within * content.share * unseen, freedom))
    return interval(mean, _half_width(parts))


def mean_interval(launches: Sequence[Sample], *, spread: LaunchSpread = SHIPPED) -> Interval:
    """The cell's own mean step time, to compare cells by: the future run's own scatter left out."""
    mean = sum(s.mean for s in launches) / len(launches)
    between, between_freedom = _between_launches(launches, mean, (), spread)
    within, within_freedom = _within_launches(launches, mean)
    parts = [(between / len(launches), between_freedom)]
    parts.append((within / _pooled_worth(launches, within), within_freedom))
    return interval(mean, _half_width(parts))


def spread_share(launches: Sequence[Sample], *, spread: LaunchSpread = SHIPPED) -> float:
    """What share of the uncertainty of a mean is due to how launches differ, the rest to steps."""
    mean = sum(s.mean for s in launches) / len(launches)
    between, _ = _between_launches(launches, mean, (), spread)
    within, _ = _within_launches(launches, mean)
    of_launches = between * (1 + 1 / len(launches))
    of_steps = within / _pooled_worth(launches, within)
    whole = of_launches + of_steps
    return of_launches / whole if whole > 0 else 0.0


def event_interval(values_s: Sequence[float]) -> Interval:
    """One future event of a kind of which a few were timed: a restart, a checkpoint, a start-up."""
    n = len(values_s)
    mean = sum(values_s) / n
    own = sum((v - mean) ** 2 for v in values_s)
    freedom = ASSUMED_EVENT_WEIGHT + n - 1
    variance = (ASSUMED_EVENT_WEIGHT * (ASSUMED_EVENT_SPREAD * mean) ** 2 + own) / freedom
    return interval(mean, t_quantile(CONFIDENCE, freedom) * math.sqrt(variance * (1 + 1 / n)))


def _between_launches(
    launches: Sequence[Sample],
    mean: float,
    peers: Sequence[Sequence[Sample]] = (),
    spread: LaunchSpread = SHIPPED,
    noise: float = 1.0,
) -> tuple[float, float]:
    """Variance between launches and its degrees of freedom, the assumed spread included.

    What is known before never makes the variance smaller than the launches themselves show it:
    the shipped spread may be of a calmer machine. `noise` is the share of the scatter within a
    launch that is not the same in all of them.

    Of the scatter that the steps within the launches explain, half is taken off what is moderated:
    a difference of two estimates is too uncertain to take off all, and coverage showed it.
    """
    groups = [group for group in (launches, *peers) if len(group) > 1]
    seen = sum(len(group) - 1 for group in groups)
    freedom = spread.weight + seen
    own = max(0.0, sum(_scatter(group, noise / 2) for group in groups))
    moderated = (spread.weight * spread.relative**2 + own) / freedom
    shown = sum(_scatter(group, noise) for group in groups) / max(1, seen)
    return max(moderated, shown) * mean**2, freedom


def launches_differ(
    groups: Sequence[Sequence[Sample]], spread: LaunchSpread = SHIPPED, noise: float = 1.0
) -> bool:
    """Whether launches of one cell scatter by more than the spread known before explains (1 %).

    Args:
        groups: launches that have one mean.
        spread: known before; what the steps within a launch scatter is added.
        noise: as for `_between_launches`.
    """
    from scipy.special import chdtri

    squares, freedom = 0.0, 0
    for group in groups:
        mean = sum(s.mean for s in group) / max(1, len(group))
        if len(group) < 2 or mean <= 0:
            continue
        within = noise * sum(s.variance / s.n_eff for s in group) / len(group)
        expected = (spread.relative * mean) ** 2 + within
        squares += sum((s.mean - mean) ** 2 for s in group) / expected
        freedom += len(group) - 1
    return freedom > 0 and squares > float(chdtri(freedom, _BY_CHANCE))


def _scatter(launches: Sequence[Sample], taken_off: float) -> float:
    """Sum of squares of the launches' means about their own, relative to it.

    What they differ by within-launch noise alone is counted there already: so much of it is taken
    off, as a share.
    """
    mean = sum(s.mean for s in launches) / len(launches)
    explained = taken_off * sum(s.variance / s.n_eff for s in launches) / len(launches)
    own = sum((s.mean - mean) ** 2 for s in launches) - (len(launches) - 1) * explained
    return own / mean**2 if mean > 0 else 0.0


def _within_launches(launches: Sequence[Sample], mean: float) -> tuple[float, float]:
    """Variance of the steps of a launch and its degrees of freedom, the assumed one included."""
    own = sum((s.n - 1) * s.variance for s in launches)
    weight = ASSUMED_STEP_WEIGHT + sum(s.n - 1 for s in launches)
    variance = (ASSUMED_STEP_WEIGHT * (ASSUMED_STEP_SPREAD * mean) ** 2 + own) / weight
    # correlated steps tell the spread well, but little about how far their mean is off
    return variance, ASSUMED_STEP_WEIGHT + sum(max(0.0, s.n_eff - 1) for s in launches)


def _pooled_worth(launches: Sequence[Sample], within: float) -> float:
    """How many independent steps the launches are worth together, for a variance of `within`.

    No more than their sum, and no more than makes the mean of the launches as uncertain as each
    launch says of itself: one that saw a burst of slow steps is not outvoted by many that saw none.
    """
    together = sum(s.n_eff for s in launches)
    apart = sum(s.variance / s.n_eff for s in launches) / len(launches) ** 2
    return together if apart <= 0 else max(1.0, min(together, within / apart))


def _half_width(parts: Sequence[tuple[float, float]]) -> float:
    variance = sum(v for v, _ in parts)
    if variance <= 0:
        return 0.0
    freedom = variance**2 / sum(v**2 / f for v, f in parts)
    return t_quantile(CONFIDENCE, freedom) * math.sqrt(variance)


def t_tail(t: float, freedom: float) -> float:
    """Probability that Student's t is larger than this."""
    from scipy.special import stdtr

    return float(stdtr(freedom, -t))


def holm(p_values: Sequence[float], level: float) -> list[bool]:
    """Which of a family of hypotheses are rejected, with at most `level` for any false rejection.

    Source: Holm, "A simple sequentially rejective multiple test procedure" (1979).
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    rejected = [False] * len(p_values)
    for rank, i in enumerate(order):
        if p_values[i] > level / (len(p_values) - rank):
            break
        rejected[i] = True
    return rejected


def t_quantile(confidence: float, freedom: float) -> float:
    """Two-sided quantile of Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + confidence) / 2))


def share_interval(count: int, of: int) -> tuple[float, float]:
    """The 95 % interval of a share that was counted (Clopper & Pearson, Biometrika 26, 1934)."""
    from scipy.special import betaincinv

    tail = (1 - CONFIDENCE) / 2
    low = 0.0 if count == 0 else float(betaincinv(count, of - count + 1, tail))
    high = 1.0 if count == of else float(betaincinv(count + 1, of - count, 1 - tail))
    return low, high
