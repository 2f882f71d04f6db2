"""Quantiles of Student's t distribution, and other probability functions."""

from __future__ import annotations

from collections.abc import Sequence

CONFIDENCE = 0.95


def t_tail(t: float, freedom: float) -> float:
    """Probability that Student's t exceeds this value."""
    from scipy.special import stdtr

    return float(stdtr(freedom, -t))


def holm(p_values: Sequence[float], level: float) -> list[bool]:
    """Which of a family of hypotheses are rejected, with at most `level` for any false rejection.

    Source: Holm, "A simple sequentially rejective multiple test procedure" (1979).
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    rejected = [False] * len(p_values)
    for rank, i in enumerate(order):
        if p_values[i] > level / (len(p_values) - rank):
            break
        rejected[i] = True
    return rejected


def t_quantile(confidence: float, freedom: float) -> float:
    """Two-sided quantile of Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + confidence) / 2))


def share_interval(count: int, of: int) -> tuple[float, float]:
    """The 95 % interval of a counted share (Clopper & Pearson, Biometrika 26, 1934)."""
    from scipy.special import betaincinv

    tail = (1 - CONFIDENCE) / 2
    low = 0.0 if count == 0 else float(betaincinv(count, of - count + 1, tail))
    high = 1.0 if count == of else float(betaincinv(count + 1, of - count, 1 - tail))
    return low, high
