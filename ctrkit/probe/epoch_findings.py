"""Findings on the epochs of the recommended cell: length, sameness, pace, warnings."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from ctrkit.core.child_records import Inspection, Measurement
from ctrkit.core.config import Cell
from ctrkit.core.launch_spread import SHIPPED
from ctrkit.core.records import Finding
from ctrkit.core.units import format_count, format_duration
from ctrkit.measure.content import first_batches_only
from ctrkit.measure.epoch_length import has_one_epoch, length_finding, length_in
from ctrkit.measure.later_epochs import later_epochs, later_finding
from ctrkit.measure.projection import Projection
from ctrkit.measure.steps import first_throughput_step
from ctrkit.measure.terms import every_epoch_finding, validation_finding
from ctrkit.measure.trends import Trend, falls_back
from ctrkit.probe.beside import launches_beside
from ctrkit.probe.cell_results import turn_of
from ctrkit.probe.same_epoch import (
    has_other_epoch,
    launches_of_the_same_epoch,
    other_content_finding,
    other_epochs,
    other_epochs_finding,
)
from ctrkit.probe.trials import Trial

_MOST_WARNINGS = 3


def epoch_findings(
    cell: Cell,
    launches: Sequence[Measurement],
    projection: Projection | None,
    trials: Sequence[Trial],
    inspection: Inspection,
) -> list[Finding]:
    """All findings on the epochs, the most important first.

    Args:
        cell: the recommended cell.
        launches: its launches.
        projection: its projection; None if the length of an epoch is unknown.
        trials: trials of all cells.
        inspection: inspection of the workload.
    """
    others = other_epochs(trials)
    claimed = inspection.sizes.train_batches if inspection.sizes is not None else None
    if cell.loader == "none":  # a script without a DataLoader has no known epochs
        return _warnings(cell, trials)
    found = [
        other_epochs_finding(list(others.values()), all_of_them=has_other_epoch(cell, others)),
        length_finding(length_in(launches, launches_of_the_same_epoch(cell, trials), claimed)),
    ]
    if projection is not None and projection.trends:
        found.append(_trend(launches, projection))
    if projection is not None:
        found.append(_first_batches(launches, projection))
        found.append(_validation(launches, projection))
        beside = launches_beside(cell, trials)  # empty except for a script
        epochs = projection.sizes.epochs
        found.append(every_epoch_finding(beside, projection.each_epoch, epochs))
    spread = inspection.launch_spread or SHIPPED
    later = later_epochs(launches, turn_of(cell), spread)
    if later is not None:
        found.append(later_finding(later, cell.persistent, cell.workers))
    if not has_other_epoch(cell, others):
        found.append(other_content_finding(cell, trials))
    found += _warnings(cell, trials)
    return [finding for finding in found if finding is not None]


def _note(stage: str, text: str, confidence: str = "high") -> Finding:
    return Finding(stage=stage, share=None, worth_x=None, text=text, confidence=confidence)


def batch_size_finding(
    cell: Cell, launches: Sequence[Measurement], inspection: Inspection
) -> Finding | None:
    """A finding that a user's loader takes a batch size but makes batches of another one."""
    if cell.loader != "custom" or "batch_size" not in inspection.axes:
        return None
    made = next((m.loader.batch_size for m in launches if m.loader and m.loader.batch_size), None)
    if made is None or made == cell.batch_size:
        return None
    return _note(
        "batch size",
        f"make_loader was asked for batches of {format_count(cell.batch_size)} rows, and its "
        f"DataLoader makes batches of {format_count(made)}: it ignores `batch_size`, so no "
        "--batch-size changes it",
    )


def one_epoch_finding(launches: Sequence[Measurement], epochs: int | None) -> Finding | None:
    """A finding that a run of several epochs is impossible; None if it is possible.

    Args:
        launches: launches of the cell.
        epochs: epochs of the run, if known.
    """
    if not has_one_epoch(launches):
        return None
    projected = f"; ctrkit projects one epoch, not {epochs}" if (epochs or 1) > 1 else ""
    return _note(
        "epoch",
        "the second epoch has no batches: the loader can be iterated only once, so a run of "
        f"several epochs ends there; make it start again each time `iter()` is called{projected}",
    )


def _first_batches(launches: Sequence[Measurement], projection: Projection) -> Finding | None:
    """A finding that the rest of the epoch is unknown, if all launches saw only its beginning."""
    seen, batches = first_batches_only(launches), projection.sizes.train_batches
    if seen is None or batches is None or seen >= batches:
        return None
    text = (
        f"ctrkit saw only the first {format_count(seen)} of {format_count(batches)} batches of "
        f"an epoch: if later batches take more or less time, the projection does "
        "not include that"
    )
    return Finding(stage="epoch", share=None, worth_x=None, text=text, confidence="high")


def _validation(launches: Sequence[Measurement], projection: Projection) -> Finding | None:
    term, epoch_s = projection.each_epoch.get("validation"), projection.epoch.mean
    share = term.mean / epoch_s if term is not None and epoch_s > 0 else 0.0
    return validation_finding(launches, projection.sizes, share)


def _trend(launches: Sequence[Measurement], projection: Projection) -> Finding:
    trend, batches = projection.trends[0], projection.sizes.train_batches or 0
    measured = max(launches, key=lambda m: m.throughput_steps)
    first = first_throughput_step(measured) + 1
    last = first + trend.steps - 1
    how = "slower" if trend.rises else "faster"
    count = len(projection.trends)
    launched = f", in each of {count} launches" if count > 1 else ""
    text = (
        f"steps get {how} throughout the epoch: {format_duration(trend.first_s)} at step "
        f"{format_count(first)}, {format_duration(trend.last_s)} at step {format_count(last)} of "
        f"{format_count(batches)} (rank correlation {trend.tau:.2f}{launched}); "
        f"{_trend_cause(measured, trend)}; {_trend_bound(projection, trend)}"
    )
    return _note("trend", text, "low")


def _trend_cause(measured: Measurement, trend: Trend) -> str:
    """A possible cause; only what the second epoch shows is stated as certain."""
    back = falls_back(measured, trend)
    if back:
        return (
            "a new epoch begins at the pace at which this one began, so the order of the data "
            "causes it (sorted by length, for example), not the machine"
        )
    machine = "memory that grows or a processor that heats up" if trend.rises else "a cache"
    if back is None:
        return f"sorted data can do that, or {machine}; ctrkit saw no second epoch that would "
        "tell which"
    return (
        f"a new epoch continues at the pace at which this one ended: {machine} does that, the "
        "order of the data does not"
    )


def _trend_bound(projection: Projection, trend: Trend) -> str:
    epoch = projection.first_epoch or projection.epoch
    if not trend.rises:
        return (
            f"ctrkit projects an epoch whose steps get no faster from there: at most "
            f"{format_duration(epoch.mean)}"
        )
    assert math.isinf(epoch.high), "what rises has no upper bound"
    return (
        f"an epoch takes at least {format_duration(epoch.low)} if they get no slower from there, "
        f"and {format_duration(epoch.mean)} if the trend continues, which ctrkit projects"
    )


def _warnings(cell: Cell, trials: Sequence[Trial]) -> list[Finding]:
    """Torch's own warnings: the recommended cell's first, others with their cell's name."""
    texts: dict[str, str] = {}
    for trial in sorted(trials, key=lambda t: t.cell != cell):
        measured = trial.result.measurement
        for text in measured.warnings if measured is not None else ():
            where = "" if trial.cell == cell else f" in {trial.cell.name}"
            texts.setdefault(text, _warning_words(text, where))
    return [_note("warning", words) for words in list(texts.values())[:_MOST_WARNINGS]]


def _warning_words(text: str, where: str) -> str:
    """A warning of torch's, and its meaning for speed if known."""
    operation = re.search(r"operator '([^']+)' is not currently supported on the MPS", text)
    if operation is not None:
        return (
            f"MPS has no {operation[1]}: torch computes it on the CPU{where} "
            "(PYTORCH_ENABLE_MPS_FALLBACK), and each time copies its data there and back. Another "
            "operation, a newer torch, or --device cpu may be faster"
        )
    return f"a warning of torch's own{where}: {text}"
