"""Whether a second epoch is faster or slower than the first: a cache that fills, a cold disk.

It compares steps of equal numbers, so data whose steps take longer later in an epoch shows no
difference. Workers that end with an epoch lose their caches; the steps show that, too.

On a machine with other work, no two stretches of steps have the same pace. So a difference counts
only if all launches show it and if it is larger than chance explains: the known spread of launches
and the scatter of autocorrelated steps. A launch is left out if other processes used more cores in
one of its two epochs than in the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ctrkit.core.child_records import Measurement
from ctrkit.core.launch_spread import SHIPPED, LaunchSpread
from ctrkit.core.records import Finding
from ctrkit.core.units import format_factor, format_percent
from ctrkit.measure.quantiles import t_quantile
from ctrkit.measure.samples import effective_sample_size
from ctrkit.measure.statistics import Interval, interval
from ctrkit.measure.step_ends import ends_s, seconds_between

#: The pace differs if it changed by this share, and by more than chance.
_LEAST_CHANGE = 0.2
_LEAST_STEPS = 5
_CONFIDENCE = 0.99
#: Autocorrelated steps show their scatter badly; these are the least degrees of freedom and the
#: least number of independent steps that they count for.
_LEAST_FREEDOM, _LEAST_WORTH = 3.0, 2.0
#: A larger difference of the cores that other processes used explains the pace.
_OTHER_CORES = 0.2


@dataclass(frozen=True, kw_only=True)
class LaterEpochs:
    """The training time of later epochs as a factor of the first one's, with its basis."""

    factor: Interval
    steps: int
    whole: bool


def later_epochs(
    launches: Sequence[Measurement], cycle: int = 1, spread: LaunchSpread = SHIPPED
) -> LaterEpochs | None:
    """How later epochs differ from the first; None if they do not, or too little was measured.

    Args:
        launches: launches of one cell.
        cycle: number of the loader's workers: their first batches were made before the loop waited.
        spread: what was known before about how launches differ; two epochs of a launch are
            assumed to differ as much.
    """
    told = [m for m in launches if not _has_other_load(m)]
    found = [pair for pair in (_pair(m, cycle) for m in told) if pair is not None]
    factors = [_mean(second) / _mean(first) for first, second in found if _mean(first) > 0]
    if not factors or len({factor > 1 for factor in factors}) > 1:
        return None
    mean = _mean(factors)
    half = mean * _by_chance(factors, found, spread)
    if abs(mean - 1) < _LEAST_CHANGE or half >= abs(mean - 1):
        return None
    steps = sum(len(first) for first, _ in found)
    whole = all(m.epoch_complete for m in launches)
    return LaterEpochs(factor=interval(mean, half), steps=steps, whole=whole)


def _by_chance(
    factors: Sequence[float],
    pairs: Sequence[tuple[list[float], list[float]]],
    spread: LaunchSpread,
) -> float:
    """Half the width of the interval of the mean factor, as a share of it, at 99 %.

    A factor compares two stretches of steps. Its variance is the sum of two: between stretches,
    which is known before and shown by the scatter of the factors, and of the steps within them. The
    degrees of freedom of the sum are those of Welch-Satterthwaite.
    """
    launched = len(factors)
    logs = [math.log(factor) for factor in factors]
    own = sum((one - _mean(logs)) ** 2 for one in logs)
    freedom = spread.weight + launched - 1
    known = 2 * spread.relative**2
    stretches = max(
        (spread.weight * known + own) / freedom, own / (launched - 1) if launched > 1 else 0.0
    )
    parts = [(stretches / launched, freedom)]
    for first, second in pairs:
        variance, worth = _variance(first, second)
        parts.append((variance / launched**2, max(_LEAST_FREEDOM, worth - 1)))
    variance = sum(v for v, _ in parts)
    if variance <= 0:
        return 0.0
    combined = variance**2 / sum(v**2 / f for v, f in parts)
    return t_quantile(_CONFIDENCE, combined) * math.sqrt(variance)


def _has_other_load(measurement: Measurement) -> bool:
    """Whether other processes used more cores in one of the two epochs than in the other."""
    cores = measurement.other_cores
    return len(cores) > 1 and abs(cores[1] - cores[0]) > _OTHER_CORES


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _pair(measurement: Measurement, cycle: int) -> tuple[list[float], list[float]] | None:
    """Seconds of the steps that both epochs have, by equal numbers; None if there are too few."""
    if measurement.first_batch:  # the two epochs have no step number in common
        return None
    first, second = (_seconds(measurement, epoch) for epoch in (1, 2))
    places = sorted(first.keys() & second.keys())
    places = [place for place in places if place > max(1, cycle, measurement.warm_up_steps)]
    if len(places) < _LEAST_STEPS:
        return None
    return [first[place] for place in places], [second[place] for place in places]


def _seconds(measurement: Measurement, epoch: int) -> dict[int, float]:
    """Seconds of each step of an epoch by its number, except steps without a predecessor."""
    stamps, found = measurement.stamps, {}
    ends = ends_s(stamps)
    for i in range(1, len(stamps.epoch)):
        seconds = seconds_between(ends, i, not_before_s=0.0)
        if stamps.epoch[i] == stamps.epoch[i - 1] == epoch and seconds is not None:
            found[stamps.step[i]] = seconds
    return found


def _variance(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """Relative variance of the mean difference of two epochs, and the number of independent steps.

    The variance is relative to the squared mean of the second epoch. Steps are not independent, as
    other work makes many in a row slow.
    """
    differences = [b - a for a, b in zip(first, second, strict=True)]
    n, mean = len(differences), _mean(differences)
    scatter = sum((d - mean) ** 2 for d in differences) / (n - 1)
    worth = effective_sample_size(differences)
    short = max(worth, _LEAST_WORTH)
    scatter *= short / (short - 1)  # around their own mean they scatter too little
    of_second = _mean(second)
    return (scatter / worth / of_second**2 if of_second > 0 else math.inf), worth


def later_finding(later: LaterEpochs, persistent: bool, workers: int) -> Finding:
    """A finding on a second epoch with another pace."""
    factor = later.factor.mean
    changed = (
        f"{format_factor(1 / factor)} as fast" if factor < 1 else
        f"slower: {format_percent(factor - 1)} more time a step"
    )  # fmt: skip
    text = (
        f"later epochs are {changed}, by {later.steps} steps at equal places of both epochs: "
        "the first epoch and the later ones are projected separately"
    )
    if factor < 1:
        text += "; a cache that the first epoch fills does that, of the data set's or the system's"
        if workers and not persistent:
            text += " (a cache inside the workers would have ended with them)"
    if factor < 1 and not later.whole:
        text += "; rows that the trial did not come to may not be cached yet in its second epoch"
    confidence = "high" if later.whole else "medium"
    return Finding(stage="later epochs", share=None, worth_x=None, text=text, confidence=confidence)
