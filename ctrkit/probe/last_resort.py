"""Projects from the steps of trials that were cut off, where no trial came to its end.

On a busy machine a trial may take longer than the whole budget. A wide answer is then better than
none, and it says what it is based on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ctrkit.core.child_records import Measurement
from ctrkit.core.config import Cell
from ctrkit.core.records import Finding
from ctrkit.core.units import format_count
from ctrkit.measure.statistics import PROVISIONAL, Interval
from ctrkit.probe.candidates import Candidate
from ctrkit.probe.trials import Trial

#: These few steps may be the slow first ones: the run may take a third, or three times as long.
_UNSURE = 3.0


def salvaged(trials: Sequence[Trial]) -> list[Trial]:
    """The same trials; those that the budget cut count with any step that they made."""
    return [_salvaged(trial) for trial in trials]


def _salvaged(trial: Trial) -> Trial:
    measured = trial.result.measurement
    if trial.result.verdict != "skipped" or trial.usable or measured is None:
        return trial
    steps = _with_steps(measured)
    if steps is None:
        return trial
    return replace(trial, result=replace(trial.result, measurement=steps), is_salvaged=True)


def _with_steps(measured: Measurement) -> Measurement | None:
    """The same with its warm-up as its window if it got no further; None without steps."""
    windows = measured.stamps.window
    if measured.throughput_steps or "throughput" in windows:
        return measured
    if "warmup" not in windows:
        return None
    timed = ["throughput" if window == "warmup" else window for window in windows]
    return replace(measured, stamps=replace(measured.stamps, window=timed))


def unsure(candidate: Candidate) -> Candidate:
    """The candidate with a projection as wide as so few steps require."""
    projection = candidate.projection
    if projection is None:
        return candidate
    first = projection.first_epoch
    wide = replace(
        projection,
        epoch=_wide(projection.epoch),
        total=_wide(projection.total),
        first_epoch=None if first is None else _wide(first),
        flags=list(dict.fromkeys([*projection.flags, PROVISIONAL])),
    )
    return replace(candidate, projection=wide)


def _wide(interval: Interval) -> Interval:
    low, high = interval.mean / _UNSURE, interval.mean * _UNSURE
    return replace(interval, low=min(interval.low, low), high=max(interval.high, high))


def unsure_finding(cell: Cell, trials: Sequence[Trial]) -> Finding:
    """A finding on how little the answer is based on, and how to get a better one."""
    own = [t for t in trials if t.cell == cell and t.is_salvaged]
    steps = sum(
        t.result.measurement.stamps.window.count("throughput")
        for t in own
        if t.result.measurement is not None
    )
    counted = "1 step" if steps == 1 else f"{format_count(steps)} steps"
    text = (
        f"the budget ended before a trial did: this rests on {counted} of one, and may be off by a "
        f"factor of {_UNSURE:.0f} either way. A longer --budget or a quieter machine tells "
        "more"
    )
    return Finding(stage="budget", share=None, worth_x=None, text=text, confidence="low")
