"""Widens an interval by what a flag measured, or leaves it open above.

A flag without an effect would be a warning that nobody can act on. Heavy tail: allows for as many
slow steps as the count of those seen permits, of the size of those seen. Not steady: the run may
keep the pace of either half. Drift: the run may begin at the latest pace and change as much again;
if the machine got slower by more than a tenth, the interval is open above.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ctrkit.measure.quantiles import CONFIDENCE, t_quantile
from ctrkit.measure.samples import HEAVY_TAIL, NOT_STEADY, Sample
from ctrkit.measure.statistics import Interval

#: A machine that got slower by more than this may go on getting slower.
OPEN_ENDED_DRIFT = 0.1
_UNKNOWN_TAIL_FACTOR = 2.0
#: The slope of an epoch's first steps counts if it is not chance, at this confidence, ...
_SURE = 0.99
#: ... and if it changes the epoch's mean by at least this share.
_LEAST_CHANGE = 0.1


def cautious(step: Interval, samples: Sequence[Sample], raw: Sequence[Sample]) -> Interval:
    """The interval of a step, widened for its flags.

    Args:
        step: the interval without them.
        samples: samples of the launches, replayed or not, which have the flags.
        raw: samples of the same launches' windows, which have the slow steps.
    """
    if any(sample.has(HEAVY_TAIL) for sample in samples):
        step = _with_slow_steps(step, raw)
    if any(sample.has(NOT_STEADY) for sample in samples):
        step = widened(step, max(sample.change for sample in samples))
    return step


def _with_slow_steps(step: Interval, samples: Sequence[Sample]) -> Interval:
    """Allow as many slow steps as the seen ones permit (Poisson), up to twice as slow."""
    from scipy.special import chdtri

    told = [sample.slow for sample in samples if sample.slow is not None]
    if not told:
        half = step.half * _UNKNOWN_TAIL_FACTOR
        low = max(step.low / _UNKNOWN_TAIL_FACTOR, step.mean - _UNKNOWN_TAIL_FACTOR * half)
        return Interval(mean=step.mean, low=min(step.low, low), high=step.mean + half)
    count, steps = sum(one.count for one in told), sum(sample.n for sample in samples)
    each_s = sum(one.count * one.excess_s for one in told) / count
    grow = max(one.may_grow for one in told)
    most_s = max(grow * each_s, max(one.most_s for one in told))
    tail = (1 - CONFIDENCE) / 2
    fewest = float(chdtri(2 * count, 1 - tail)) / 2 / steps
    most = float(chdtri(2 * (count + 1), tail)) / 2 / steps
    usual_s = max(0.0, step.mean - count * each_s / steps)
    return Interval(
        mean=step.mean,
        low=min(step.low, usual_s * step.low / step.mean + fewest * each_s / grow),
        high=max(step.high, usual_s + most * most_s),
    )


def widened(step: Interval, change: float) -> Interval:
    """The interval if the pace may differ by this share of the mean, in either direction."""
    return Interval(
        mean=step.mean, low=step.low / (1 + change), high=step.high + change * step.mean
    )


def beyond_the_begin(step: Interval, samples: Sequence[Sample], batches: int) -> Interval | None:
    """The interval if only an epoch's first steps were seen, and they got slower or faster.

    The change may go on to the end of the epoch, along the line through these steps. None if the
    slope may be chance (1 %), or is too small to matter.

    Args:
        step: seconds per step, without such a change.
        samples: the steps of launches that all began with the epoch's first batch.
        batches: number of batches of an epoch.
    """
    lines = [s.line for s in samples if s.line is not None]
    if not lines or step.mean <= 0:
        return None
    slope_s = sum(line.slope_s for line in lines) / len(lines)
    error_s = math.sqrt(sum(line.error_s**2 for line in lines)) / len(lines)
    freedom = max(1.0, sum(s.n_eff - 2 for s in samples))
    to_come = (batches - max(s.n for s in samples)) / 2
    steepest_s = abs(slope_s) + t_quantile(CONFIDENCE, freedom) * error_s
    if abs(slope_s) <= t_quantile(_SURE, freedom) * error_s:
        return None
    if abs(slope_s) * to_come < _LEAST_CHANGE * step.mean:
        return None
    change_s = steepest_s * to_come
    if slope_s > 0:
        return Interval(mean=step.mean, low=step.low, high=step.high + change_s)
    return Interval(mean=step.mean, low=step.low / (1 + change_s / step.mean), high=step.high)


def drifting(time: Interval, factor: float) -> Interval:
    """The interval of a time on a machine whose pace changed by this factor meanwhile.

    A factor above 1 means slower. The mean stays: the launches lie between both paces.
    """
    change = abs(math.log(factor))
    if factor < 1:
        return Interval(mean=time.mean, low=time.low * math.exp(-2 * change), high=time.high)
    if change > OPEN_ENDED_DRIFT:
        return Interval(mean=time.mean, low=time.low, high=math.inf)
    return Interval(mean=time.mean, low=time.low, high=time.high * math.exp(2 * change))
