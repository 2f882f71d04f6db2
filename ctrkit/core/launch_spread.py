"""How much the step time of one cell differs between launches: assumed, or learned from real runs.

A pair is a projection and what the run then took. Its error e, divided by sqrt(1 + 1/L) for the L
launches that the projection was made from, is one draw of that difference.

The model has two levels (Smyth, "Linear models and empirical Bayes methods", 2004, sections 3, 4).
Each workload has a variance of its own; over the workloads of a machine these follow a scaled
inverse chi-square of `weight` degrees of freedom. So a pair of *another* workload is a draw of
Student's t of that weight, and the scale of this t is what such pairs tell: what is shipped counts
as PRIOR_PAIRS of them. The n pairs of *this* workload are draws of its own variance: what was known
before counts as `weight` of them, and the next draw is Student's t of about `weight + n` degrees.

One run that something else slowed down must not count for all. Each pair is weighed by
(v + 1) / (v + (e/s)^2) with v = `weight`, as under a t distribution (Lange, Little & Taylor 1989).
Of normal errors this takes a part away: the workload's variance is divided by what is left of it in
the mean. Three pairs of a workload outvote one such run; of one or two nobody knows which it was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ctrkit.core.units import format_percent

#: What is shipped counts as so many pairs of other workloads.
PRIOR_PAIRS = 8.0
_MOST_WEIGHT = 20.0
#: A weighed pair tells as much of a normal variance as so many pairs that count in full (at v = 2).
_WORTH_OF_PAIR = 0.8
_ROUNDS = 30


@dataclass(frozen=True, kw_only=True)
class LaunchSpread:
    """The relative sd between launches, and as how many observations of it that counts.

    Args:
        relative: the sd as a share of the mean.
        weight: degrees of freedom. Few of them make wide intervals until launches agree.
        pairs: projections of this machine, and their runs, that it was learned from.
        own_pairs: those of the very workload.
    """

    relative: float
    weight: float
    pairs: int = 0
    own_pairs: int = 0

    @property
    def is_learned(self) -> bool:
        """Whether this machine has told anything of it."""
        return self.pairs > 0

    def words(self) -> str:
        """What is known of how launches differ, and from how many runs."""
        size = f"{format_percent(self.relative)} of the time"
        if not self.is_learned:
            return (
                f"that launches differ by {size} is assumed, from this project's own runs: no "
                "projected run has ended on this machine yet. If launches differ by more here, "
                "and those of the probe agreed by chance, the range is too narrow"
            )
        runs = "1 run" if self.pairs == 1 else f"{self.pairs} runs"
        return (
            f"that launches differ by {size} was learned from {runs} of this machine, "
            f"{self.own_pairs or 'none'} of them of this workload"
        )


#: From the 42 pairs of results/pairs.json, none left out: Student's t fits their errors best with
#: 2 degrees of freedom and a scale of 2.4 %. Shipped is the upper end of the 95 % likelihood
#: interval of that scale, since the pairs are of one machine and of runs minutes after their probe.
SHIPPED = LaunchSpread(relative=0.033, weight=2.0)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A projected time, the launches that it was made from, and what the run took."""

    projected_s: float
    actual_s: float
    launches: int
    is_of_workload: bool = False

    @property
    def deviation(self) -> float:
        """The error as one draw of the difference between two launches, over sqrt(2)."""
        return math.log(self.actual_s / self.projected_s) / math.sqrt(1 + 1 / self.launches)


def learned_spread(pairs: Sequence[Pair], before: LaunchSpread = SHIPPED) -> LaunchSpread:
    """The spread after these pairs; `before` it where there are none."""
    if not pairs:
        return before
    own = [pair.deviation for pair in pairs if pair.is_of_workload]
    others = [pair.deviation for pair in pairs if not pair.is_of_workload]
    weight = min(_MOST_WEIGHT, before.weight + _WORTH_OF_PAIR * len(own))
    relative = _scale(others, before.relative, counts_as=PRIOR_PAIRS, freedom=before.weight)
    if own:
        kept = _kept_of_normal(before.weight)
        relative = _scale(own, relative, counts_as=before.weight, freedom=before.weight, kept=kept)
    return LaunchSpread(
        relative=relative,
        weight=weight,
        pairs=len(pairs),
        own_pairs=len(own),
    )


def _scale(
    deviations: Sequence[float],
    before: float,
    *,
    counts_as: float,
    freedom: float,
    kept: float = 1.0,
) -> float:
    """The scale of these deviations, each weighed; `before` counts as so many of them.

    `kept` is the share of a square that the weights leave in the mean. At 1 the scale is that of
    Student's t of `freedom`; otherwise it is the sd of the distribution that `kept` was made for.
    """
    variance = before**2
    for _ in range(_ROUNDS):
        weighed = [e * e * (freedom + 1) / (freedom + e * e / variance) for e in deviations]
        whole = counts_as * before**2 + sum(weighed) / kept
        variance = whole / (counts_as + len(deviations))
    return math.sqrt(variance)


def _kept_of_normal(freedom: float) -> float:
    """Mean of (v + 1) z^2 / (v + z^2) for a standard normal z: what the weights leave of its 1."""
    half = freedom / 2
    return (freedom + 1) * (
        1 - math.sqrt(math.pi * half) * math.exp(half) * math.erfc(math.sqrt(half))
    )
