"""Mean step times with honest intervals, within a launch and between launches.

Small samples say little about their own spread. So every variance estimate is *moderated*: averaged
with a stated assumption that counts as a few observations, as in Smyth, "Linear models and
empirical Bayes methods" (2004), section 4. The assumptions are the constants below and, for the
spread between launches, `core/launch_spread.py`; a measured spread soon outweighs them. Totals are
projected from means, never from medians.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ctrkit.core.launch_spread import SHIPPED, LaunchSpread
from ctrkit.measure.quantiles import CONFIDENCE, t_quantile
from ctrkit.measure.samples import Sample

#: Relative sd of the steps of one launch; matters only while there are few steps.
ASSUMED_STEP_SPREAD = 0.05
ASSUMED_STEP_WEIGHT = 2.0
#: Relative sd of events that happen once per epoch or run: restarts, checkpoints, start-ups.
ASSUMED_EVENT_SPREAD = 0.25
ASSUMED_EVENT_WEIGHT = 4.0

PROVISIONAL = "provisional"
DRIFT = "drift"
#: Launches count as different if chance would do that in at most one of twenty cases.
_BY_CHANCE = 0.05


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean in seconds, and its 95 % bounds.

    `low` is above 0 if the mean is; `high` is infinite if nothing bounds it.
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
        """The interval of `factor` times the quantity.

        The error is the same in all, so it multiplies.
        """
        return Interval(mean=self.mean * factor, low=self.low * factor, high=self.high * factor)


ZERO = Interval(mean=0.0, low=0.0, high=0.0)


def interval(mean: float, half: float) -> Interval:
    """The interval `mean` plus and minus `half`, with a lower bound above 0.

    If `half` exceeds half the mean, the lower bound follows a hyperbola that continues with the
    same slope.
    """
    low = mean - half if half <= mean / 2 else mean**2 / (4 * half)
    return Interval(mean=mean, low=low, high=mean + half)


def total(parts: Sequence[Interval]) -> Interval:
    """The interval of a sum of independent parts: widths add in quadrature, on each side."""
    mean = sum(p.mean for p in parts)
    below = math.sqrt(sum((p.mean - p.low) ** 2 for p in parts))
    above = math.sqrt(sum(p.half**2 for p in parts))
    return Interval(mean=mean, low=mean - below, high=mean + above)


@dataclass(frozen=True, kw_only=True)
class Content:
    """How much of the steps' differences comes from the batches, and not from noise.

    Args:
        share: share of the variance of a step within a launch.
        distinct: different batches that were measured, each counted once.
        batches: batches of an epoch; a run trains on these and no others.
    """

    share: float
    distinct: int
    batches: float


def prediction_interval(
    launches: Sequence[Sample],
    horizon_steps: float,
    peers: Sequence[Sequence[Sample]] = (),
    *,
    spread: LaunchSpread = SHIPPED,
    content: Content | None = None,
) -> Interval:
    """Mean step time of one future run of `horizon_steps` steps, as a 95 % prediction interval.

    The variance is s_b^2 (1 + 1/L) + s_w^2 (1/n_eff + 1/N_eff): s_b is the spread between launches
    (L measured ones and the one to come), s_w the spread of steps within a launch (n measured and N
    projected). A share of s_w^2 may be due to `content`. That part averages out over the m
    different batches that were seen, not over all steps, and vanishes once all B batches of an
    epoch were seen: s_c^2 (1/m - 1/B) (sampling without replacement, Cochran, "Sampling
    Techniques", section 2.5). The parts have their own degrees of freedom, combined by Welch and
    Satterthwaite.

    Args:
        launches: samples of the cell's launches.
        horizon_steps: steps of the future run.
        peers: launches of other cells, a group per cell; they only tell how far launches of one
            cell differ, relative to their mean.
        spread: what is assumed about that.
        content: the part of the scatter that comes from the batches.
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
    """The cell's own mean step time, to compare cells: without the future run's own scatter."""
    mean = sum(s.mean for s in launches) / len(launches)
    between, between_freedom = _between_launches(launches, mean, (), spread)
    within, within_freedom = _within_launches(launches, mean)
    parts = [(between / len(launches), between_freedom)]
    parts.append((within / _pooled_worth(launches, within), within_freedom))
    return interval(mean, _half_width(parts))


def spread_share(launches: Sequence[Sample], *, spread: LaunchSpread = SHIPPED) -> float:
    """The share of a mean's uncertainty that comes from differences between launches."""
    mean = sum(s.mean for s in launches) / len(launches)
    between, _ = _between_launches(launches, mean, (), spread)
    within, _ = _within_launches(launches, mean)
    of_launches = between * (1 + 1 / len(launches))
    of_steps = within / _pooled_worth(launches, within)
    whole = of_launches + of_steps
    return of_launches / whole if whole > 0 else 0.0


def event_interval(values_s: Sequence[float]) -> Interval:
    """One future event of a kind that was timed a few times: a restart, checkpoint or start-up."""
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
    """Variance between launches and its degrees of freedom, including the assumed spread.

    Earlier knowledge never makes the variance smaller than the launches themselves show it: the
    shipped spread may come from a calmer machine. `noise` is the share of the scatter within a
    launch that differs between launches. Half of the scatter that the steps within launches explain
    is subtracted: a difference of two estimates is too uncertain to subtract all of it, as measured
    coverage showed.
    """
    groups = [group for group in (launches, *peers) if len(group) > 1]
    seen = sum(len(group) - 1 for group in groups)
    freedom = spread.weight + seen
    own = max(0.0, sum(_scatter(group, noise / 2) for group in groups))
    moderated = (spread.weight * spread.relative**2 + own) / freedom
    shown = sum(_scatter(group, noise) for group in groups) / max(1, seen)
    if shown > moderated:  # the launches contradict what was known before, so it counts for half
        return shown * mean**2, seen + spread.weight / 2
    return moderated * mean**2, freedom


def between_launches(
    groups: Sequence[Sequence[Sample]], spread: LaunchSpread
) -> tuple[float, float]:
    """Variance between launches of one cell, relative to the squared mean; its degrees of freedom.

    Args:
        groups: the launches, grouped by cell.
        spread: what was known before; it alone decides if no group has two launches.
    """
    return _between_launches((), 1.0, groups, spread)


def launches_differ(
    groups: Sequence[Sequence[Sample]], spread: LaunchSpread = SHIPPED, noise: float = 1.0
) -> bool:
    """Whether launches of one cell scatter by more than the spread known before explains (5 %).

    Args:
        groups: launches that share a mean.
        spread: the spread known before; scatter of steps within a launch is added.
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
    """Sum of squares of the launches' means around their own mean, relative to it.

    Noise within launches alone makes their means differ, and is counted elsewhere; the share
    `taken_off` of that is subtracted.
    """
    mean = sum(s.mean for s in launches) / len(launches)
    explained = taken_off * sum(s.variance / s.n_eff for s in launches) / len(launches)
    own = sum((s.mean - mean) ** 2 for s in launches) - (len(launches) - 1) * explained
    return own / mean**2 if mean > 0 else 0.0


def _within_launches(launches: Sequence[Sample], mean: float) -> tuple[float, float]:
    """Variance of the steps of a launch and its degrees of freedom, including the assumption."""
    own = sum((s.n - 1) * s.variance for s in launches)
    weight = ASSUMED_STEP_WEIGHT + sum(s.n - 1 for s in launches)
    variance = (ASSUMED_STEP_WEIGHT * (ASSUMED_STEP_SPREAD * mean) ** 2 + own) / weight
    # correlated steps show the spread well, but say little about the error of their mean
    return variance, ASSUMED_STEP_WEIGHT + sum(max(0.0, s.n_eff - 1) for s in launches)


def _pooled_worth(launches: Sequence[Sample], within: float) -> float:
    """How many independent steps the launches are worth together, for a variance of `within`.

    At most their sum, and at most what makes their mean as uncertain as each launch says about
    itself: one that saw a burst of slow steps is not outvoted by many that saw none.
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
