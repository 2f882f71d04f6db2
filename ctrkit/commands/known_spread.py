"""How much launches differed in earlier runs on this machine: for a new probe, and for an old one.

A probe assumes that the run starts right after it. Runs that start hours or days later have a
spread of their own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from ctrkit.core.calibration import (
    HOUR_S,
    CalibrationRow,
    name_of_time_apart,
    pairs_of,
    read_calibration,
)
from ctrkit.core.child_records import Inspection
from ctrkit.core.environment import machine_fingerprint
from ctrkit.core.errors import UsageError
from ctrkit.core.launch_spread import SHIPPED, learned_spread
from ctrkit.core.records import Recommendation
from ctrkit.core.units import format_duration, format_percent
from ctrkit.report.words import plural


def with_launch_spread(inspection: Inspection) -> Inspection:
    """The inspection with the spread between launches, if earlier runs have shown it.

    An unreadable calibration file is ignored here; `ctrkit report --calibration` says what is
    wrong.
    """
    rows = readable_rows()
    pairs = pairs_of(rows, machine_fingerprint(), inspection.workload_fingerprint)
    return replace(inspection, launch_spread=learned_spread(pairs))


def readable_rows() -> list[CalibrationRow]:
    """All calibrations of this machine's cache; none if the file cannot be read."""
    try:
        return read_calibration()
    except UsageError:
        return []


def of_its_age(
    projection: Recommendation,
    rows: Sequence[CalibrationRow],
    now: datetime,
    *,
    machine: str,
    workload: str | None,
) -> tuple[Recommendation, str]:
    """The projection for a run that starts now, and what its range rests on; "" within an hour.

    The range of a probe is for a run started at once. Over hours and days a machine changes more:
    as far as runs that began so long after their probe have shown that, the range gets wider.

    Args:
        projection: what the probe projected.
        rows: all calibrations.
        now: when the run starts.
        machine: fingerprint of this machine.
        workload: fingerprint of the workload; None if unknown.
    """
    age_s = _age_s(projection, now)
    if age_s is None or age_s <= HOUR_S:
        return projection, ""
    apart = name_of_time_apart(age_s)
    pairs = pairs_of(rows, machine, workload, apart)
    old = f"the probe is {format_duration(age_s)} old"
    if not pairs:
        return projection, (
            f"{old}, and no run that was started so long after its probe has ended on this machine "
            "yet: the range is that of a run started right after the probe"
        )
    before = projection.launch_spread or SHIPPED
    spread = learned_spread(pairs, before)
    words = (
        f"{old}: how runs differ that start so long after their probe "
        f"({format_percent(spread.relative)} of the time) was learned from "
        f"{plural(len(pairs), 'run')} of this machine ({apart})"
    )
    # imported here, since most runs start within an hour and need no numpy
    from ctrkit.measure.quantiles import CONFIDENCE, t_quantile

    extra = max(0.0, spread.relative**2 - before.relative**2)
    half = t_quantile(CONFIDENCE, spread.weight) * math.sqrt(
        extra * (1 + 1 / max(1, projection.launches or 1))
    )
    if not half:
        return projection, f"{words}, no more than right after it; the range stays"
    return _wider(projection, half), f"{words}; the range is wider for it"


def _age_s(projection: Recommendation, now: datetime) -> float | None:
    try:
        return (now - datetime.fromisoformat(projection.projected_at or "")).total_seconds()
    except (ValueError, TypeError):
        return None


def _wider(projection: Recommendation, half: float) -> Recommendation:
    """The projection with this relative half-width added to its ranges in quadrature."""
    from ctrkit.measure.statistics import interval

    changed: dict[str, Any] = {}
    for name in ("projected_epoch_s", "projected_total_s"):
        mean = getattr(projection, name)
        low, high = (getattr(projection, f"{name}_{end}") for end in ("low", "high"))
        if mean and high is not None:
            changed[f"{name}_high"] = mean + math.hypot(high - mean, half * mean)
        if mean and low is not None:
            changed[f"{name}_low"] = interval(mean, math.hypot(mean - low, half * mean)).low
    return replace(projection, **changed)
