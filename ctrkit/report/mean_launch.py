"""Combines the launches of a cell into one record, so that all its figures are of all launches."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from ctrkit.core.records import TrialRecord
from ctrkit.measure.ratio import LaunchTime, mean_of

_MEANS = (
    "step_s", "startup_s", "first_batch_s", "epoch_restart_s", "validation_s", "metrics_s",
    "checkpoint_s", "warm_up_s", "projected_epoch_s", "projected_total_s",
    "projected_first_epoch_s",
)  # fmt: skip
_MOST = ("peak_rss_bytes", "peak_device_bytes")


def mean_launch(launches: Sequence[TrialRecord]) -> TrialRecord:
    """The last launch, with the figures of all: mean times, and the most memory.

    The rate and the share of data wait are those of all steps together, so they fit the mean step.
    """
    last = launches[-1]
    if len(launches) == 1:
        return last
    changes: dict[str, object] = {name: _mean(_known(launches, name)) for name in _MEANS}
    changes |= {name: max(_known(launches, name), default=None) for name in _MOST}
    changes |= {"stage_s": _mean_stages(launches), "rows_per_s": _rate(launches)}
    changes |= {"data_wait_share": _wait_share(launches)} | _step_interval(launches)
    for name in ("projected_epoch_s", "projected_total_s"):
        changes |= _projected_interval(launches, name)
    return dataclasses.replace(last, **changes)  # type: ignore[arg-type]


def _known(launches: Sequence[TrialRecord], name: str) -> list[float]:
    return [value for one in launches if (value := getattr(one, name)) is not None]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _mean_stages(launches: Sequence[TrialRecord]) -> Mapping[str, float]:
    """The mean of each stage over the launches that timed stages."""
    timed = [one.stage_s for one in launches if one.stage_s]
    names = dict.fromkeys(name for stage_s in timed for name in stage_s)
    return {name: sum(one.get(name, 0.0) for one in timed) / len(timed) for name in names}


def _rate(launches: Sequence[TrialRecord]) -> float | None:
    """Rows of a mean step per second: the harmonic mean."""
    rates = _known(launches, "rows_per_s")
    return len(rates) / sum(1 / rate for rate in rates) if rates and min(rates) > 0 else None


def _wait_share(launches: Sequence[TrialRecord]) -> float | None:
    """The share of all steps together: a slow launch counts for more."""
    known = [one for one in launches if one.data_wait_share is not None]
    step_s = sum(one.step_s or 0.0 for one in known)
    if step_s <= 0:
        return _mean(_known(launches, "data_wait_share"))
    return sum((one.data_wait_share or 0.0) * (one.step_s or 0.0) for one in known) / step_s


def _step_interval(launches: Sequence[TrialRecord]) -> dict[str, float | None]:
    """The interval's ends of the mean step over several launches; None without intervals."""
    times = [
        LaunchTime(mean_s=r.step_s, half_s=r.step_s_high - r.step_s)
        for r in launches
        if r.step_s and r.step_s_high is not None
    ]
    if not times:
        return {"step_s_low": None, "step_s_high": None}
    mean = mean_of(times)
    return {"step_s_low": mean.low, "step_s_high": mean.high}


def _projected_interval(launches: Sequence[TrialRecord], name: str) -> dict[str, float | None]:
    """The mean ends of the intervals, each for one run; no upper end if a launch has none."""
    projected = [one for one in launches if getattr(one, name) is not None]
    lows, highs = _known(projected, f"{name}_low"), _known(projected, f"{name}_high")
    bounded = len(highs) == len(projected)
    return {f"{name}_low": _mean(lows), f"{name}_high": _mean(highs) if bounded else None}
