"""Names the columns of a task's own metrics in `epochs.csv`, so that none hides a fixed column."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ctrkit.core.config import Watch
from ctrkit.core.epochs import OWN, own_column
from ctrkit.core.errors import UsageError

_LONGEST = 200


def own_metrics(metrics: object) -> dict[str, float | str | None]:
    """The metrics by column; what is no number is kept as text, None stays unknown.

    Raises:
        UsageError: they are no mapping.
    """
    if not isinstance(metrics, Mapping):
        raise UsageError(
            f"Task.metrics returned a {type(metrics).__name__}; it must return a dict of numbers "
            "by name"
        )
    columns: dict[str, float | str | None] = {}
    for name, value in metrics.items():
        column = own_column(" ".join(str(name).split()) or "unnamed")
        while column in columns:
            column = OWN + column
        columns[column] = _value(value)
    return columns


def _value(value: Any) -> float | str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        try:
            return float(value)
        except (TypeError, ValueError, RuntimeError, OverflowError):
            pass
    return " ".join(str(value).split())[:_LONGEST]


def check_watch(watch: object) -> Watch | None:
    """The metric that a workload watches, None for none.

    Raises:
        UsageError: it is not a name and a direction.
    """
    if watch is None:
        return None
    if isinstance(watch, tuple | list) and len(watch) == 2:
        name, direction = watch
        if isinstance(name, str) and name and direction in ("max", "min"):
            return name, direction
    raise UsageError(
        f"watch is {watch!r}; write a metric and its direction, for example "
        'watch = ("val_accuracy", "max")'
    )


def watched_value(columns: Mapping[str, float | str | None], watch: Watch | None) -> float | None:
    """The value that is watched; None where the epoch has no number there. NaN stays NaN."""
    value = columns.get(own_column(watch[0])) if watch else None
    return value if isinstance(value, int | float) else None


def is_better(value: float, best: float | None, watch: Watch) -> bool:
    """Whether a value is a gain on the best one so far; what is not finite never is."""
    if not math.isfinite(value):
        return False
    return best is None or (value > best if watch[1] == "max" else value < best)
