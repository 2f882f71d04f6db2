"""Whether the machine changed its pace during a probe, told from launches that differ anyway.

The cell that was launched first is launched again last. Two launches of one cell never take quite
the same time, so their difference is a drift only where it is more than launches differ by chance:
by what is known of that before, and by what the other launches of the probe show.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ctrkit.core.launch_spread import LaunchSpread
from ctrkit.measure.quantiles import t_quantile
from ctrkit.measure.samples import Sample
from ctrkit.measure.statistics import between_launches

#: The same cell, launched first and again last, that differs by less than this has not drifted.
LEAST_DRIFT = 0.03
#: A machine that keeps its pace is said to drift in one of twenty probes at most. To miss a drift
#: makes a projection wrong, to see one that is none makes it wider.
_CONFIDENCE = 0.95
#: Where no cell was launched twice beside it, only what is assumed tells how launches differ.
_CONFIDENCE_ALONE = 0.98
#: The freedom of a part counts where it makes up this share of the variance.
_MATTERS = 0.1


@dataclass(frozen=True, kw_only=True)
class Launched:
    """The steps of a launch, and when it was made: 0 with the first one, 1 with the last."""

    at: float
    sample: Sample


def drift_factor(
    first: Sample,
    last: Sample,
    groups: Sequence[Sequence[Launched]],
    spread: LaunchSpread,
) -> float | None:
    """By what factor steps took longer at the end of a probe; None where that may be chance.

    Args:
        first: of the cell that was launched first.
        last: of its last launch, at the same place of the epoch.
        groups: other launches, those of one cell together: they tell how launches differ. The drift
            is taken out of them first, or it would pass for that.
        spread: known before of how launches differ.
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
    # Welch and Satterthwaite's freedom is too large where little is known of how launches differ
    freedom = min(f for v, f in parts if v > _MATTERS * variance)
    is_alone = all(len(group) < 2 for group in groups)
    confidence = _CONFIDENCE_ALONE if is_alone else _CONFIDENCE
    by_chance = t_quantile(confidence, freedom) * math.sqrt(variance)
    return factor if abs(math.log(factor)) > max(LEAST_DRIFT, by_chance) else None


def _at_one_pace(launched: Launched, factor: float) -> Sample:
    """The launch as it would have been at the pace of the first one."""
    slower = float(factor**launched.at)
    sample = launched.sample
    return replace(sample, mean=sample.mean / slower, variance=sample.variance / slower**2)
