"""The ratio of two mean times, with an interval: one cell in one run against another run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ctrkit.core.launch_spread import SHIPPED
from ctrkit.measure.quantiles import CONFIDENCE, t_quantile, t_tail


@dataclass(frozen=True, kw_only=True)
class LaunchTime:
    """Seconds of one launch, and the half-width of its 95 % interval if known."""

    mean_s: float
    half_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """New time over base time with its 95 % bounds: above 1 is slower. Also a mean, over 1 s.

    `error` is the standard error of its logarithm, with `freedom` degrees of freedom.
    """

    mean: float
    low: float
    high: float
    error: float = 0.0
    freedom: float = math.inf

    def p_above(self, limit: float) -> float:
        """Probability of so large a ratio by chance if the true one is `limit` (one-sided)."""
        beyond = math.log(self.mean / limit)
        if self.error <= 0:
            return 0.0 if beyond > 0 else 1.0
        return t_tail(beyond / self.error, self.freedom)


def ratio_of(base: Sequence[LaunchTime], new: Sequence[LaunchTime]) -> Ratio:
    """The ratio of the geometric means of two sets of launches, each non-empty, none of 0 s.

    It uses differences of logarithms with Student's t; the two variances are combined by Welch and
    Satterthwaite. A launch's own interval contains the assumed spread between launches; it counts
    as SHIPPED.weight observations, and is moderated by the scatter of the actual launches (see
    `statistics`). So a single launch keeps its recorded interval, and three launches that agree get
    a narrower one.
    """
    (base_log, base_variance, base_freedom) = _mean_log(base)
    (new_log, new_variance, new_freedom) = _mean_log(new)
    variance = base_variance + new_variance
    half, freedom = 0.0, math.inf
    if variance > 0:
        freedom = variance**2 / (base_variance**2 / base_freedom + new_variance**2 / new_freedom)
        half = t_quantile(CONFIDENCE, freedom) * math.sqrt(variance)
    middle = new_log - base_log
    return Ratio(
        mean=math.exp(middle),
        low=math.exp(middle - half),
        high=math.exp(middle + half),
        error=math.sqrt(variance),
        freedom=freedom,
    )


def mean_of(launches: Sequence[LaunchTime]) -> Ratio:
    """The mean time of a cell over its launches, with the 95 % interval of that mean.

    As for a ratio, each launch's own interval is moderated by how the launches differ. More
    launches that agree make it narrower.
    """
    middle, variance, freedom = _mean_log(launches)
    half = t_quantile(CONFIDENCE, freedom) * math.sqrt(variance)
    mean = sum(launch.mean_s for launch in launches) / len(launches)
    scale = mean / math.exp(middle)
    return Ratio(
        mean=mean,
        low=scale * math.exp(middle - half),
        high=scale * math.exp(middle + half),
        error=math.sqrt(variance),
        freedom=freedom,
    )


def _mean_log(launches: Sequence[LaunchTime]) -> tuple[float, float, float]:
    """Mean of the logarithms, its variance, and that variance's degrees of freedom."""
    if not launches:
        raise ValueError("no launches to compare")
    logs = [math.log(launch.mean_s) for launch in launches]
    mean, count = sum(logs) / len(logs), len(logs)
    recorded = sum(_variance(launch) for launch in launches) / count
    own = sum((log - mean) ** 2 for log in logs)
    freedom = SHIPPED.weight + count - 1
    return mean, (SHIPPED.weight * recorded + own) / freedom / count, freedom


def _variance(launch: LaunchTime) -> float:
    """Relative variance of a launch's time, from its interval."""
    if launch.half_s is None:
        return SHIPPED.relative**2
    t = t_quantile(CONFIDENCE, SHIPPED.weight)
    return (launch.half_s / launch.mean_s / t) ** 2
