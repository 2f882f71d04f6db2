"""Steps that get slower or faster all through an epoch: found by rank correlation, projected on.

Data sorted by length causes that, and so do growing memory and a machine that heats up. A rise is
no autocorrelation: a window's mean says little about an epoch of which it saw only the beginning.
Kendall's rank correlation with the position in the window detects a trend of any shape; Theil and
Sen's slope, the median of the slopes of all pairs, measures it (Sen 1968).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ctrkit.core.child_records import Measurement
from ctrkit.measure.step_ends import ends_s, seconds_between

#: Means of so many stretches are ranked, so that noise and the turns of workers even out.
_MOST_STRETCHES, _LEAST_STRETCHES = 24, 8
#: A trend is extrapolated to the whole epoch, so one found by chance ruins a projection. A probe of
#: 20 cells examines up to 100 windows; in 1 of 1,000 probes a trend may be found by chance
#: (Bonferroni). Of ten steps, at most one pair may then be out of order ...
_BY_CHANCE = 0.001 / 100
_LEAST_TAU = 0.5
#: ... and the trend matters if it changes the pace by this share of the mean. A trend that hardly
#: any stretch contradicts matters from a smaller share on, since the window may only be the
#: beginning of the epoch.
_LEAST_CHANGE, _STRICT_TAU, _LEAST_STRICT_CHANGE = 0.25, 0.8, 0.08
#: In each half of the window, the slope must be this share of the whole: a jump is no trend.
_LEAST_OF_HALF = 0.3


@dataclass(frozen=True, kw_only=True)
class Trend:
    """A line through the steps of a window.

    Args:
        steps: steps in the window.
        middle_s: seconds of a step in its middle.
        slope_s: seconds by which each step is longer than the one before; negative: shorter.
        tau: rank correlation of a step's time with its position, -1 to 1.
    """

    steps: int
    middle_s: float
    slope_s: float
    tau: float

    @property
    def rises(self) -> bool:
        """Whether steps get slower."""
        return self.slope_s > 0

    def at(self, place: float) -> float:
        """Seconds of the step at this position of the window, from 0; never negative."""
        return max(0.0, self.middle_s + self.slope_s * (place - (self.steps - 1) / 2))

    @property
    def first_s(self) -> float:
        """Seconds of the window's first step."""
        return self.at(0)

    @property
    def last_s(self) -> float:
        """Seconds of the window's last step."""
        return self.at(self.steps - 1)


def trend_of(values_s: Sequence[float] | np.ndarray) -> Trend | None:
    """The trend of a window's steps, in order; None if there is none, or too few steps."""
    values = np.asarray(values_s, dtype=np.float64)
    stretch = max(1, values.size // _MOST_STRETCHES)
    count = values.size // stretch
    if count < _LEAST_STRETCHES:
        return None
    means = values[: count * stretch].reshape(count, stretch).mean(axis=1)
    tau = _kendall(means)
    if abs(tau) < _LEAST_TAU or _chance_of(tau, count) > _BY_CHANCE:
        return None
    slope = _slope(means)
    halves = _slope(means[: count // 2]), _slope(means[count // 2 :])
    if any(half * np.sign(slope) < _LEAST_OF_HALF * abs(slope) for half in halves):
        return None
    slope_s = slope / stretch
    least = _LEAST_STRICT_CHANGE if abs(tau) >= _STRICT_TAU else _LEAST_CHANGE
    if abs(slope_s) * values.size < least * float(values.mean()):
        return None
    return Trend(steps=values.size, middle_s=float(values.mean()), slope_s=slope_s, tau=tau)


def without_trend(values_s: np.ndarray, trend: Trend) -> np.ndarray:
    """The steps around their mean, without the trend's line; the rest is scatter."""
    line = trend.slope_s * (np.arange(values_s.size) - (values_s.size - 1) / 2)
    return np.asarray(values_s - line)


def _kendall(values: np.ndarray) -> float:
    """Kendall's rank correlation with the position."""
    n = values.size
    later = np.sign(values[None, :] - values[:, None])[np.triu_indices(n, 1)]
    return float(later.sum()) / (n * (n - 1) / 2)


def _chance_of(tau: float, n: int) -> float:
    """Probability of a rank correlation at least this far from 0 in a random order.

    Computed exactly, since the normal approximation is worst for few values and small
    probabilities.
    """
    pairs = n * (n - 1) // 2
    out_of_order = round((1 - abs(tau)) / 2 * pairs)
    return min(1.0, 2 * float(_orders(n)[: out_of_order + 1].sum()))


@lru_cache(maxsize=64)
def _orders(n: int) -> np.ndarray:
    """Share of all orders of n values that have 0, 1, 2, ... pairs out of order.

    The i-th value precedes 0 to i - 1 of the earlier ones, with equal probability.
    """
    shares = np.ones(1)
    for i in range(2, n + 1):
        shares = np.convolve(shares, np.full(i, 1 / i))
    return shares


def _slope(values: np.ndarray) -> float:
    first, second = np.triu_indices(values.size, 1)
    return float(np.median((values[second] - values[first]) / (second - first)))


def common_trend(trends: Sequence[Trend | None]) -> list[Trend]:
    """The trends of one direction, if more than half of the launches show it; else empty."""
    for rises in (True, False):
        same = [t for t in trends if t is not None and t.rises == rises]
        if 2 * len(same) > len(trends):
            return same
    return []


@dataclass(frozen=True, kw_only=True)
class TrendingEpoch:
    """Mean step, in seconds, of a whole epoch whose steps follow a trend.

    `low_s` and `high_s` bound it; `high_s` is infinite if nothing does.
    """

    mean_s: float
    low_s: float
    high_s: float


def trending_epoch(trend: Trend, before: int, batches: int) -> TrendingEpoch:
    """The mean step of an epoch of `batches`; the window begins after `before` steps.

    If it rises, the mean assumes that the trend continues, and the low bound that steps get no
    slower from here. If it falls, mean and high bound assume that steps get no faster from here,
    and the low bound is only the time that was seen.
    """
    seen = min(batches, before + trend.steps)
    seen_s = sum(trend.at(place - before) for place in range(seen))
    level_s = seen_s + (batches - seen) * trend.last_s
    if not trend.rises:
        return TrendingEpoch(
            mean_s=level_s / batches, low_s=seen_s / batches, high_s=level_s / batches
        )
    later = batches - seen
    onward_s = later * trend.last_s + trend.slope_s * later * (later + 1) / 2
    return TrendingEpoch(
        mean_s=(seen_s + onward_s) / batches, low_s=level_s / batches, high_s=math.inf
    )


def falls_back(measurement: Measurement, trend: Trend) -> bool | None:
    """Whether a new epoch begins like the first one, and not as the window ended.

    Then the order of the data causes the trend, not the machine. None if no step of a second epoch
    was measured.
    """
    stamps = measurement.stamps
    ends = ends_s(stamps)
    second = (
        seconds_between(ends, i, not_before_s=stamps.asked_s[i])
        for i in range(1, len(stamps.epoch))
        if stamps.epoch[i] == 2 and stamps.epoch[i - 1] == 2
    )
    again = [seconds for seconds in second if seconds is not None]
    if not again or measurement.first_batch:
        return None
    mean_s = sum(again) / len(again)
    return abs(mean_s - trend.first_s) < abs(mean_s - trend.last_s)
