"""Finds out whether the machine changed its pace during a probe.

The cell that was launched first is launched again last. Two launches of one cell never take exactly
the same time. So a difference is a drift only if it is larger than chance makes it. How much
launches differ by chance is known from earlier runs and from the probe's other launches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ctrkit.core.launch_spread import LaunchSpread
from ctrkit.measure.quantiles import t_quantile
from ctrkit.measure.samples import Sample
from ctrkit.measure.statistics import between_launches

#: A smaller difference between the cell's first and last launch is no drift.
LEAST_DRIFT = 0.03
#: At most one of twenty probes reports a drift on a machine that keeps its pace. That is not
#: strict, because a drift that is missed makes a projection wrong, and a false one only wider.
_CONFIDENCE = 0.95
#: The same if no other cell was launched twice: then only the assumed spread tells how they differ.
_CONFIDENCE_ALONE = 0.98
#: The degrees of freedom of a part count if it makes up more than this share of the variance.
_MATTERS = 0.1


@dataclass(frozen=True, kw_only=True)
class Launched:
    """A launch's steps, and its time `at` within the probe: 0 is the first launch, 1 the last."""

    at: float
    sample: Sample


def drift_factor(
    first: Sample,
    last: Sample,
    groups: Sequence[Sequence[Launched]],
    spread: LaunchSpread,
) -> float | None:
    """The factor by which steps took longer at the end of a probe; None if that may be chance.

    Args:
        first: steps of the first launch, of the cell that is launched again last.
        last: steps of its last launch, at the same place of the epoch.
        groups: the other launches, grouped by cell. They show how launches differ by chance, after
            the drift itself was taken out of them.
        spread: what was known before about how launches differ.
    """
    factor = last.mean / first.mean
    peers = [[_at_one_pace(one, factor) for one in group] for group in groups]
    between, freedom = between_launches(peers, spread)
    parts = [(2 * between, freedom)]
    for s in (first, last):
        parts.append((s.variance / s.n_eff / s.mean**2, max(1.0, s.n_eff - 1)))
    variance = sum(v for v, _ in parts)
    if variance <= 0:
        return factor if abs(math.log(factor)) > LEAST_DRIFT else None
    # not the degrees of freedom of Welch-Satterthwaite: they are too many if few launches were seen
    freedom = min(f for v, f in parts if v > _MATTERS * variance)
    is_alone = all(len(group) < 2 for group in groups)
    confidence = _CONFIDENCE_ALONE if is_alone else _CONFIDENCE
    by_chance = t_quantile(confidence, freedom) * math.sqrt(variance)
    return factor if abs(math.log(factor)) > max(LEAST_DRIFT, by_chance) else None


def _at_one_pace(launched: Launched, factor: float) -> Sample:
    """The steps as they would have been at the pace of the probe's first launch."""
    slower = float(factor**launched.at)
    sample = launched.sample
    return replace(sample, mean=sample.mean / slower, variance=sample.variance / slower**2)
