"""Steps that are slower or faster at other places in the epoch, as when data is sorted by length.

Launches begin at different places. If their means differ by more than launches and steps do by
chance, the epoch is projected along the line through the places; between two places, a step may
take the time of either. Beyond the last place the line continues, and if it rises there, the
interval is open above.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ctrkit.core.child_records import Measurement
from ctrkit.core.launch_spread import LaunchSpread
from ctrkit.measure.content import steps_by_batch
from ctrkit.measure.quantiles import t_quantile
from ctrkit.measure.samples import Sample, sample_of
from ctrkit.measure.statistics import Interval
from ctrkit.measure.steps import (
    first_throughput_step,
    sample_of_measurement,
    step_times_s,
    trends_of,
)
from ctrkit.measure.trends import TrendingEpoch, trending_epoch

VARIES = "varies over the epoch"
#: Means of two places differ if chance would do that in at most one of a hundred cases ...
_SURE = 0.99
#: ... and by at least this share.
_LEAST_CHANGE = 0.1
#: Degrees of freedom of the t for two places. The few of the spread would hide all but the largest
#: differences.
_FREEDOM = 3.0
#: If the last place is this near to the end of the epoch, nothing is unseen.
_NEAR_THE_END = 0.2
#: A window is divided into at most so many stretches, each of at least so many rounds of workers.
_MOST_STRETCHES, _LEAST_STRETCH = 4, 8


@dataclass(frozen=True, kw_only=True)
class TimedStretch:
    """A stretch of the epoch and its mean step; `begin` and `end` are shares of the epoch."""

    begin: float
    end: float
    sample: Sample


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Mean seconds of a step over the whole epoch, from the places that were seen.

    `high_s` is infinite if nothing bounds it.
    """

    mean_s: float
    low_s: float
    high_s: float
    places: int


def places_of(launches: Sequence[Measurement], batches: int, cycle: int = 1) -> list[TimedStretch]:
    """The places that the launches measured, in order."""
    found = []
    for m in launches:
        sample = sample_of_measurement(m, cycle)
        if sample is not None:
            begin = m.first_batch + first_throughput_step(m)
            end = min(batches, begin + sample.n)
            found.append(TimedStretch(begin=begin / batches, end=end / batches, sample=sample))
    return sorted(found, key=_begin)


def _begin(place: TimedStretch) -> float:
    return place.begin


def _stretches(measurement: Measurement, batches: int, cycle: int) -> list[TimedStretch]:
    """The window of a launch as a few stretches of whole rounds of workers."""
    times = step_times_s(measurement)
    length = max(_LEAST_STRETCH * cycle, -(-len(times) // _MOST_STRETCHES))
    length -= length % cycle
    begin = measurement.first_batch + first_throughput_step(measurement)
    found = []
    for at in range(0, max(min(1, len(times)), len(times) - length + 1), length):
        part = times[at : at + length]
        first, last = begin + at, min(batches, begin + at + len(part))
        found.append(
            TimedStretch(begin=first / batches, end=last / batches, sample=sample_of(part))
        )
    return found


def profile_of(
    launches: Sequence[Measurement], batches: int, spread: LaunchSpread, cycle: int = 1
) -> Profile | None:
    """The epoch along its places; None if they do not differ, or there is only one."""
    places = places_of(launches, batches, cycle)
    if len({m.first_batch for m in launches}) < 2 or not _differ(places, spread):
        return None
    stretches = sorted(
        (part for m in launches for part in _stretches(m, batches, cycle)), key=_begin
    )
    joined = [_joined(list(group)) for _, group in itertools.groupby(stretches, key=_place_number)]
    # beyond the last place, use whole windows: stretches lie too close together
    whole = [_joined(list(group)) for _, group in itertools.groupby(places, key=_place_number)]
    return _along(joined, whole[-2:]) if len(joined) > 1 and len(whole) > 1 else None


def _differ(places: Sequence[TimedStretch], spread: LaunchSpread) -> bool:
    """Whether any two places differ by more than chance; tests all pairs (Bonferroni)."""
    pairs = [
        (a, b) for a, b in itertools.combinations(places, 2) if b.begin >= (a.begin + a.end) / 2
    ]
    if not pairs:
        return False
    level = 1 - (1 - _SURE) / len(pairs)
    for a, b in pairs:
        if a.sample.mean <= 0 or b.sample.mean <= 0:
            continue
        difference = abs(math.log(b.sample.mean / a.sample.mean))
        error = math.sqrt(2 * spread.relative**2 + sum(_relative_error(p) for p in (a, b)))
        if difference > max(_LEAST_CHANGE, t_quantile(level, _FREEDOM) * error):
            return True
    return False


def _relative_error(place: TimedStretch) -> float:
    sample = place.sample
    return sample.variance / sample.n_eff / sample.mean**2


def _place_number(place: TimedStretch) -> int:
    return round(place.begin * 100)


def _joined(places: Sequence[TimedStretch]) -> tuple[float, float]:
    """The middle of a place, and its mean step over all launches there."""
    middle = sum((p.begin + p.end) / 2 for p in places) / len(places)
    return middle, sum(p.sample.mean for p in places) / len(places)


def _along(
    places: Sequence[tuple[float, float]], last_two: Sequence[tuple[float, float]]
) -> Profile:
    at = np.array([place for place, _ in places])
    mean_s = np.array([mean for _, mean in places])
    last, (earlier, later) = places[-1], last_two
    slope = (later[1] - earlier[1]) / (later[0] - earlier[0])
    end_s = max(0.0, last[1] + slope * (1 - last[0]))
    xs = np.concatenate([[0.0], at, [1.0]])
    ys = np.concatenate([mean_s[:1], mean_s, [end_s]])
    widths = np.diff(xs)
    lower, upper = np.minimum(ys[:-1], ys[1:]), np.maximum(ys[:-1], ys[1:])
    is_open = slope > 0 and last[0] < 1 - _NEAR_THE_END
    return Profile(
        mean_s=float(widths @ (lower + upper)) / 2,
        low_s=float(widths @ lower),
        high_s=math.inf if is_open else float(widths @ upper),
        places=len(places),
    )


#: Two cells need so many common batches for one to say something about the other's epoch.
_LEAST_COMMON = 3


def longer_elsewhere(
    own: Sequence[Measurement],
    reference: Sequence[Measurement],
    batches: int,
    spread: LaunchSpread,
    cycle: int = 1,
) -> Interval | None:
    """How much longer a step takes over the whole epoch than in a cell's launches, as a factor.

    Another cell that saw more of the epoch tells that, by its steps on the batches that both have
    seen. None if that cell's steps take the same time everywhere.

    Args:
        own: launches of the cell.
        reference: launches of the other cell.
        batches: batches of an epoch.
        spread: spread between launches.
        cycle: number of workers of the other cell.
    """
    ours, theirs = _mean_by_batch(own), _mean_by_batch(reference)
    common = sorted(ours.keys() & theirs.keys())
    epoch = _epoch_of(reference, batches, spread, cycle)
    if epoch is None or len(common) < _LEAST_COMMON:
        return None
    at_common_s = sum(theirs[batch] for batch in common) / len(common)
    ours_s = sum(ours.values()) / len(ours)
    if at_common_s <= 0 or ours_s <= 0:
        return None
    share = sum(ours[batch] for batch in common) / len(common) / ours_s
    scale = share / at_common_s
    return Interval(mean=epoch.mean_s * scale, low=epoch.low_s * scale, high=epoch.high_s * scale)


def _mean_by_batch(launches: Sequence[Measurement]) -> dict[int, float]:
    found: dict[int, list[float]] = {}
    for measurement in launches:
        for batch, seconds in steps_by_batch(measurement).items():
            found.setdefault(batch, []).append(seconds)
    return {batch: sum(seconds) / len(seconds) for batch, seconds in found.items()}


def _epoch_of(
    launches: Sequence[Measurement], batches: int, spread: LaunchSpread, cycle: int
) -> Profile | TrendingEpoch | None:
    profile = profile_of(launches, batches, spread, cycle)
    trends = trends_of(launches)
    if profile is not None or not trends:
        return profile
    before = min(first_throughput_step(m) for m in launches)
    longest = max(trends, key=lambda trend: trend.steps)
    return trending_epoch(longest, before, batches)


def batches_seen(launches: Sequence[Measurement]) -> int:
    """The number of different batches of the epoch that the launches measured."""
    return len(set().union(*(steps_by_batch(m) for m in launches))) if launches else 0
