"""Mean step times with honest intervals, within a launch and between launches.

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

from ctrkit.core.launch_spread import SHIPPED, LaunchSpread
from ctrkit.measure.quantiles import CONFIDENCE, t_quantile
from ctrkit.measure.samples import Sample

#: Relative sd of the steps of one launch: matters only while there are but a few of them.
ASSUMED_STEP_SPREAD = 0.05
ASSUMED_STEP_WEIGHT = 2.0
#: Relative sd of what happens once an epoch or once a run: restarts, checkpoints, start-ups.
ASSUMED_EVENT_SPREAD = 0.25
ASSUMED_EVENT_WEIGHT = 4.0

PROVISIONAL = "provisional"
DRIFT = "drift"
#: The same cell, launched first and again last, that differs by more than this has drifted.
_DRIFTED = 0.03
#: Launches are said to differ where chance makes them differ so much in one of a hundred cases.
_BY_CHANCE = 0.01


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
