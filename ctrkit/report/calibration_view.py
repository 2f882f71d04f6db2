"""How right projections have been on this machine: a summary of the calibration file."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ctrkit.core.calibration import (
    FINISHED,
    INTERRUPTED,
    TIMES_APART,
    CalibrationRow,
    pairs_of,
)
from ctrkit.core.config import encode
from ctrkit.core.launch_spread import learned_spread
from ctrkit.core.units import format_duration
from ctrkit.measure.quantiles import share_interval
from ctrkit.report.blocks import Block, Column, Facts, Paragraph, Report, Section, Table
from ctrkit.report.words import clean, percent, plural

NOTHING_YET = (
    "no projected run has ended on this machine yet; make one with `ctrkit probe` and then "
    "`ctrkit train --auto-device`"
)
_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Errors and coverage of some projections, as shares; None if there is nothing to compute.

    `error_median` and `error_p95` are of |projected / actual - 1|; `covered` is the share of
    `intervals` 95 % intervals that contained the actual time.
    """

    runs: int
    error_median: float | None
    error_p95: float | None
    intervals: int
    covered: float | None


@dataclass(frozen=True, kw_only=True)
class CalibrationSummary:
    """The summary of all runs on this machine.

    Attributes:
        failures: number of failed runs by verdict.
        elsewhere: rows of another machine, Python or torch; they count in nothing else.
        spreads: how launches differ, by the time from the projection to the start of the run.
    """

    runs: int
    finished: int
    interrupted: int
    failed: int
    failures: dict[str, int]
    epoch: Accuracy
    epoch_unflagged: Accuracy
    epoch_flagged: Accuracy
    total: Accuracy
    elsewhere: int
    spreads: dict[str, LearnedSpread] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class LearnedSpread:
    """How launches differ, as a share, from so many runs; includes the shipped assumption."""

    runs: int
    relative: float


def summarize(rows: Sequence[CalibrationRow], machine_fingerprint: str) -> CalibrationSummary:
    """The summary of the rows of this machine; a run without a whole epoch has no error."""
    here = [row for row in rows if row.machine_fingerprint == machine_fingerprint]
    outcomes = Counter(row.outcome for row in here)
    failures = {
        name.removeprefix("failed: "): count
        for name, count in outcomes.most_common()
        if name not in (FINISHED, INTERRUPTED)
    }
    return CalibrationSummary(
        runs=len(here),
        finished=outcomes[FINISHED],
        interrupted=outcomes[INTERRUPTED],
        failed=sum(failures.values()),
        failures=failures,
        epoch=_accuracy(here, "epoch"),
        epoch_unflagged=_accuracy([row for row in here if not row.flags], "epoch"),
        epoch_flagged=_accuracy([row for row in here if row.flags], "epoch"),
        total=_accuracy(here, "total"),
        elsewhere=len(rows) - len(here),
        spreads=_spreads(rows, machine_fingerprint),
    )


def _spreads(rows: Sequence[CalibrationRow], machine: str) -> dict[str, LearnedSpread]:
    pairs = {apart: pairs_of(rows, machine, None, apart) for apart in TIMES_APART}
    return {
        apart: LearnedSpread(runs=len(found), relative=learned_spread(found).relative)
        for apart, found in pairs.items()
        if found
    }


def _accuracy(rows: Sequence[CalibrationRow], what: str) -> Accuracy:
    errors = [abs(error) for row in rows if (error := error_of(row, what)) is not None]
    held = [kept for row in rows if (kept := held_of(row, what)) is not None]
    return Accuracy(
        runs=len(errors),
        error_median=statistics.median(errors) if errors else None,
        error_p95=_percentile_95(errors),
        intervals=len(held),
        covered=sum(held) / len(held) if held else None,
    )


def _percentile_95(values: Sequence[float]) -> float | None:
    """The 95th percentile, with linear interpolation."""
    if len(values) < 2:
        return values[0] if values else None
    return statistics.quantiles(values, n=20, method="inclusive")[-1]


def error_of(row: CalibrationRow, what: str = "epoch") -> float | None:
    """The share projected / actual - 1 of the `epoch` or the `total`."""
    projected, actual = getattr(row, f"projected_{what}_s"), getattr(row, f"actual_{what}_s")
    return projected / actual - 1 if projected is not None and actual else None


def held_of(row: CalibrationRow, what: str = "epoch") -> bool | None:
    """Whether the interval contained the actual time; None without an interval or an end."""
    low, high = getattr(row, f"projected_{what}_s_low"), getattr(row, f"projected_{what}_s_high")
    actual = getattr(row, f"actual_{what}_s")
    if low is None or actual is None:
        return None
    return low <= actual and (high is None or actual <= high)


def calibration_json(rows: Sequence[CalibrationRow], summary: CalibrationSummary) -> dict[str, Any]:
    """`{"summary": ..., "runs": [...]}`, every row of the file, the newest run first."""
    listed = [
        encode(row) | {"epoch_error": error_of(row), "epoch_held": held_of(row)}
        for row in _newest_first(rows)
    ]
    return {"summary": asdict(summary), "runs": listed}


def calibration_report(
    rows: Sequence[CalibrationRow], summary: CalibrationSummary, machine_fingerprint: str
) -> Report:
    """The summary and the latest runs; one sentence if there are none."""
    here = [row for row in rows if row.machine_fingerprint == machine_fingerprint]
    blocks: list[Block] = []
    if here:
        blocks += [Facts(tuple(_facts(summary))), _accuracy_table(summary)]
        if summary.spreads:
            blocks += [_spread_table(summary), Paragraph(_SPREAD_WORDS, tone="dim")]
    else:
        blocks.append(Paragraph(NOTHING_YET))
    if summary.elsewhere:
        left_out = plural(summary.elsewhere, "run")
        blocks.append(
            Paragraph(f"{left_out} of another machine, Python or torch left out.", tone="dim")
        )
    sections = [Section("", tuple(blocks))]
    if here:
        sections.append(Section("The latest runs", (_runs_table(_newest_first(here)[:_SHOWN]),)))
    return Report("Calibration: projections and what the runs then took", (), tuple(sections))


def _newest_first(rows: Sequence[CalibrationRow]) -> list[CalibrationRow]:
    return sorted(rows, key=lambda row: row.when, reverse=True)


def _facts(summary: CalibrationSummary) -> list[tuple[str, str]]:
    ended = f"{summary.finished} finished, {summary.interrupted} interrupted"
    facts = [("projected runs", f"{summary.runs}: {ended}, {summary.failed} failed")]
    if summary.failures:
        each = (f"{clean(name, 40)} {count}x" for name, count in summary.failures.items())
        facts.append(("failures", ", ".join(each)))
    return facts


def _accuracy_table(summary: CalibrationSummary) -> Table:
    columns = (
        Column("projection", right=False),
        Column("runs"),
        Column("median error", short="median"),
        Column("95th percentile", short="95th"),
        Column("inside the interval", short="held"),
    )
    parts = (
        ("an epoch", summary.epoch),
        ("  without flags", summary.epoch_unflagged),
        ("  flagged", summary.epoch_flagged),
        ("the whole run", summary.total),
    )
    rows = tuple(
        (name, str(one.runs), percent(one.error_median), percent(one.error_p95), _held(one))
        for name, one in parts
        if one.runs
    )
    return Table(columns, rows)


#: An explanation of the table of spreads.
_SPREAD_WORDS = (
    "The next probe uses the first of these: its projection is of a run started at once. Few runs "
    "weigh little against the spread that is assumed before there are any."
)


def _spread_table(summary: CalibrationSummary) -> Table:
    columns = (
        Column("run started after its projection", right=False, short="started"),
        Column("runs"),
        Column("launches differ by"),
    )
    rows = tuple(
        (apart, str(found.runs), percent(found.relative))
        for apart, found in summary.spreads.items()
    )
    return Table(columns, rows)


def _held(one: Accuracy) -> str:
    if one.covered is None:
        return ""
    held = round(one.covered * one.intervals)
    low, high = share_interval(held, one.intervals)
    between = f"{low * 100:.0f} to {high * 100:.0f} %"
    return f"{held} of {one.intervals} ({percent(one.covered)}; 95 % interval: {between})"


def _runs_table(rows: Sequence[CalibrationRow]) -> Table:
    columns = (
        Column("when, UTC", right=False),
        Column("phase", right=False, optional=4),
        Column("cell", right=False, optional=3),
        Column("epochs", optional=5),
        Column("projected"),
        Column("took"),
        Column("error"),
        Column("held", right=False, optional=1),
        Column("flags", right=False, optional=6),
        Column("outcome", right=False),
    )
    shown = []
    for row in rows:
        error, held = error_of(row), held_of(row)
        shown.append(
            (
                clean(row.when.replace("T", " ")[:16], 16), clean(row.phase, 30),
                clean(row.cell_id, 40), str(row.epochs), format_duration(row.projected_epoch_s),
                "" if row.actual_epoch_s is None else format_duration(row.actual_epoch_s),
                "" if error is None else f"{error * 100:+.1f} %",
                "" if held is None else "yes" if held else "no",
                clean(", ".join(row.flags), 60), clean(row.outcome, 30),
            )
        )  # fmt: skip
    return Table(columns, tuple(shown)).without_empty_columns()
