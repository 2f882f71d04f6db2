"""Whether a second epoch is faster or slower than the first: a cache that fills, a cold disk.

It compares steps of equal numbers, so data whose steps take longer later in an epoch shows no
difference. Workers that end with an epoch lose their caches; the steps show that, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ctrkit.core.child_records import Measurement
from ctrkit.core.records import Finding
from ctrkit.core.units import format_factor, format_percent
from ctrkit.measure.quantiles import t_quantile
from ctrkit.measure.statistics import Interval, interval
from ctrkit.measure.step_ends import ends_s, seconds_between

#: The pace differs if it changed by this share, and by more than chance.
_LEAST_CHANGE = 0.2
_LEAST_STEPS = 5
_CONFIDENCE = 0.99


@dataclass(frozen=True, kw_only=True)
class LaterEpochs:
    """The training time of later epochs as a factor of the first one's, with its basis."""

    factor: Interval
    steps: int
    whole: bool


def later_epochs(launches: Sequence[Measurement], cycle: int = 1) -> LaterEpochs | None:
    """How later epochs differ from the first; None if they do not, or too little was measured.

    Args:
        launches: launches of one cell.
        cycle: number of the loader's workers: their first batches were made before the loop waited.
    """
    found = [pair for pair in (_pair(m, cycle) for m in launches) if pair is not None]
    if not found:
        return None
    factors = [sum(second) / sum(first) for first, second in found if sum(first) > 0]
    if not factors:
        return None
    mean = sum(factors) / len(factors)
    steps = sum(len(first) for first, _ in found)
    half = mean * max(_spread(first, second) for first, second in found)
    if abs(mean - 1) < _LEAST_CHANGE or half >= abs(mean - 1):
        return None
    if len({factor > 1 for factor in factors}) > 1:
        return None
    whole = all(m.epoch_complete for m in launches)
    return LaterEpochs(factor=interval(mean, half), steps=steps, whole=whole)


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


def _spread(first: Sequence[float], second: Sequence[float]) -> float:
    """Uncertainty of the mean difference, as a share of the second epoch's mean."""
    differences = [b - a for a, b in zip(first, second, strict=True)]
    n, mean = len(differences), sum(differences) / len(differences)
    variance = sum((d - mean) ** 2 for d in differences) / (n - 1)
    at_most = t_quantile(_CONFIDENCE, n - 1) * math.sqrt(variance / n)
    return at_most / (sum(second) / n) if sum(second) > 0 else math.inf


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
