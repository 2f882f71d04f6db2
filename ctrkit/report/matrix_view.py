"""Shows the probe's matrix: the best record of each cell in order, failed cells with reasons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ctrkit.core.cell import AXES, Cell, axes_of
from ctrkit.core.records import COMPLETE, Recommendation, TrialRecord
from ctrkit.core.units import format_duration
from ctrkit.report.blocks import Column, Table, Tone
from ctrkit.report.mean_launch import mean_launch
from ctrkit.report.words import clean, percent, rate_words, sentence, step_words

NOT_RUN = ("skipped", "refused")
#: Rows of cells without figures in a table.
_MOST_NOT_RUN = 6


@dataclass(frozen=True)
class CellResult:
    """The result of a cell: `record` has the numbers, `verdict` its name.

    With several launches, the record has the figures of all of them (`mean_launch`).
    """

    record: TrialRecord
    verdict: str
    failed: bool


def cell_results(trials: Sequence[TrialRecord]) -> list[CellResult]:
    """A result per cell, the fastest projected first, then predicted, failed, and not run ones.

    A real launch takes precedence over a failed part, and that over a prediction. Cells with only
    ceilings (compute, loader) measured are not in the matrix.
    """
    by_cell: dict[str, list[TrialRecord]] = {}
    for record in trials:
        by_cell.setdefault(record.cell_id, []).append(record)
    results = [result for records in by_cell.values() if (result := _result(records)) is not None]
    return sorted(results, key=_rank)


def _result(records: Sequence[TrialRecord]) -> CellResult | None:
    ran = [r for r in records if has_figures(r)]
    failed = [r for r in records if r.verdict != "ok" and r.verdict not in NOT_RUN]
    if ran:
        verdict = "ok" if any(r.verdict in COMPLETE for r in ran) else "cut short"
        failures = [r for r in failed if r.kind == "full"]
        if failures:
            launches = len(failures) + sum(r not in failures for r in ran)
            verdict = failures[-1].verdict
            verdict += f" {len(failures)}/{launches}" if launches > 1 else ""
        return CellResult(mean_launch(ran), verdict, bool(failures))
    if failed:
        return CellResult(failed[-1], failed[-1].verdict, True)
    predicted = [r for r in records if r.kind == "predicted"]
    if predicted:
        return CellResult(predicted[-1], "predicted", False)
    not_run = [r for r in records if r.verdict in NOT_RUN]
    return CellResult(not_run[-1], not_run[-1].verdict, False) if not_run else None


def has_figures(record: TrialRecord) -> bool:
    """Whether the whole step was measured, completely or until the budget cut it."""
    if record.kind != "full" or record.verdict == "ok":
        return record.kind == "full"
    return record.verdict in (*COMPLETE, "skipped") and record.step_s is not None


def _rank(result: CellResult) -> tuple[int, float, str]:
    record = result.record
    group = (
        0 if result.verdict in ("ok", "cut short") else 1 if result.verdict == "predicted" else 2
    )
    if group == 2:
        group = 4 if result.verdict == "skipped" else 3
    time_s = record.projected_total_s or record.projected_epoch_s
    if time_s is None and record.rows_per_s:
        time_s = 1 / record.rows_per_s
    return group, math.inf if time_s is None else time_s, record.cell_id


def varying_axes(cells: Sequence[Cell]) -> list[str]:
    """The axes in which the cells differ, in the order of a cell."""
    names = [row.name for row in axes_of(type(cells[0]))] if cells else []
    return [name for name in names if len({getattr(cell, name) for cell in cells}) > 1]


def axis_headings(name: str) -> tuple[str, str]:
    """The heading of an axis' column, and a shorter one where there is one."""
    headings = AXES[name].headings if name in AXES else ("", "")
    return headings[0] or name.replace("_", " "), headings[1]


def axis_words(cell: Cell, axis: str) -> str:
    """The value of an axis in words; empty if the axis does not apply."""
    value = getattr(cell, axis)
    if value is None or (not cell.workers and axis == "persistent"):
        return ""
    if axis == "loader" and value in ("custom", "script"):
        return "own"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return clean(str(value), 20)


def matrix_table(
    trials: Sequence[TrialRecord], recommendation: Recommendation | None = None
) -> Table:
    """A table with one row per cell, and only the axes that vary.

    Many cells that were not run are left out: they have no figures, and `not_run_lines` has them.
    """
    results = cell_results(trials)
    if sum(result.verdict in NOT_RUN for result in results) > _MOST_NOT_RUN:
        results = [result for result in results if result.verdict not in NOT_RUN]
    axes = varying_axes([result.record.cell for result in results]) or ["device", "loader"]
    columns = [
        *(
            Column(
                *axis_headings(axis),
                right=any(type(getattr(r.record.cell, axis)) is int for r in results),
            )
            for axis in axes
        ),
        Column("verdict", right=False),
        Column("a step"),
        Column("rows/s", optional=2),
        Column("data wait", optional=1),
        Column("an epoch"),
        Column("whole run"),
    ]
    best = recommendation.cell.cell_id if recommendation else None
    tied = [cell.cell_id for cell in recommendation.tied] if recommendation else []
    rows, tones = [], []
    for result in results:
        record = result.record
        shows_numbers = not result.failed or has_figures(record)
        mark = " (best)" if record.cell_id == best else " (tied)" if record.cell_id in tied else ""
        numbers = (
            step_words(record.step_s, record.step_s_low, record.step_s_high),
            rate_words(record.rows_per_s),
            percent(record.data_wait_share),
            *_time_words(record, recommendation),
        )
        rows.append(
            (
                *(axis_words(record.cell, axis) for axis in axes),
                clean(result.verdict) + mark,
                *(numbers if shows_numbers else ("",) * len(numbers)),
            )
        )
        tones.append(_tone(result, record.cell_id == best))
    return Table(tuple(columns), tuple(rows), tuple(tones)).without_empty_columns()


def _time_words(record: TrialRecord, recommendation: Recommendation | None) -> tuple[str, str]:
    """The time of an epoch in this cell, or of the whole run if known.

    For the recommended cell, as in the recommendation.
    """
    said: TrialRecord | Recommendation = record
    if recommendation and recommendation.cell.cell_id == record.cell_id:
        said = recommendation
    epoch_s, total_s = said.projected_epoch_s, said.projected_total_s
    if total_s is not None:
        return "", format_duration(total_s)
    return "" if epoch_s is None else format_duration(epoch_s), ""


def _tone(result: CellResult, is_best: bool) -> Tone:
    if is_best:
        return "good"
    if result.failed:
        return "bad"
    return "plain" if has_figures(result.record) else "dim"


def failure_lines(trials: Sequence[TrialRecord]) -> list[str]:
    """A line per failed cell, part and verdict: what, why, and where the evidence is."""
    alike: dict[tuple[str, str, str], list[TrialRecord]] = {}
    for record in trials:
        if record.verdict != "ok" and record.verdict not in NOT_RUN:
            key = (record.cell_id, record.kind, record.verdict)
            alike.setdefault(key, []).append(record)
    return [_failure_line(records) for records in alike.values()]


def _failure_line(records: Sequence[TrialRecord]) -> str:
    record = records[0]
    part = "" if record.kind == "full" else f" ({clean(record.kind, 20)} alone)"
    times = f" in {len(records)} launches" if len(records) > 1 else ""
    evidence = ", ".join(clean(r.evidence) for r in records if r.evidence)
    where = f" Evidence: {evidence}" if evidence else ""
    why = sentence(record.reason) or "No reason was recorded."
    return f"{clean(record.cell.name)}{part}: {clean(record.verdict)}{times}. {why}{where}"


def not_run_lines(trials: Sequence[TrialRecord]) -> list[str]:
    """A line per reason for which cells were refused, or skipped without a prediction."""
    cells: dict[tuple[str, str], list[str]] = {}
    for result in cell_results(trials):
        record = result.record
        if result.verdict in NOT_RUN:
            cells.setdefault((result.verdict, record.reason), []).append(record.cell.name)
    lines = []
    for (verdict, reason), ids in cells.items():
        named = ", ".join(clean(cell_id) for cell_id in ids[:3])
        more = f" and {len(ids) - 3} more" if len(ids) > 3 else ""
        lines.append(f"{verdict}: {named}{more}. {sentence(reason)}".rstrip())
    return lines
