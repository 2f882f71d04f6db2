"""Shows a comparison of two runs as a report, as one line, and as JSON values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ctrkit.core.config import encode
from ctrkit.core.units import format_duration, format_significant
from ctrkit.measure.ratio import Ratio
from ctrkit.report.blocks import Block, Bullets, Column, Facts, Paragraph, Report, Section, Table
from ctrkit.report.comparison import (
    FAILS_NOW,
    SLOWER,
    Compared,
    Comparison,
    common_epochs,
)
from ctrkit.report.contents import RunContents
from ctrkit.report.epoch_figures import shown_metrics
from ctrkit.report.shell_lines import short_path
from ctrkit.report.words import clean, deviation_words, factor_writer, plural, step_words

_TONES = {FAILS_NOW: "bad", SLOWER: "bad", "faster": "good", "works now": "good"}


def compare_view(comparison: Comparison) -> Report:
    """The report on a comparison: the verdict, then its rows, what changed, and cautions."""
    base, new = comparison.base, comparison.new
    head = Facts(
        (
            ("base", _run_words(base)),
            ("new", _run_words(new)),
            ("verdict", verdict_words(comparison)),
            ("gate", gate_words(comparison)),
        )
    )
    sections = [Section("", (head,))]
    if comparison.rows:
        sections.append(_rows_section(comparison))
    if base.info.command == "train" and common_epochs(base, new):
        sections.append(_metrics_section(base, new))
    sections.append(_changes_section(comparison))
    if comparison.cautions:
        sections.append(Section("Caution", (Bullets(comparison.cautions),)))
    kind = "probe" if base.info.command == "probe" else "run"
    return Report(f"Comparison of two {kind}s", (), tuple(sections))


def verdict_words(comparison: Comparison) -> str:
    """The verdict of the deciding rows: `slower: 1.21 (1.15 ..

    1.27) times as long a step in ...`.
    """
    rows = comparison.regressions or comparison.deciding
    if not rows:
        return "not known: no configuration was measured in both runs"
    parts = [_row_words(row) for row in rows[:3]]
    more = f"; and {len(rows) - 3} more" if len(rows) > 3 else ""
    return f"{comparison.verdict}: {'; '.join(parts)}{more}"


def gate_words(comparison: Comparison) -> str:
    """Whether the new run passes, and why not."""
    limit = f"{format_significant(comparison.threshold * 100)} %"
    among = f" among {plural(comparison.compared, 'comparison')}"
    if comparison.gate == "regression":
        return f"regression beyond {limit}{among}"
    if comparison.gate == "passed":
        return f"passed: no regression beyond {limit}{among}"
    if not any(row.ratio for row in comparison.deciding):
        return (
            "cannot tell: nothing was measured in both runs; probe the same configurations in both"
        )
    return (
        f"cannot tell: the interval reaches beyond {limit}; more launches (a longer --budget, "
        "fewer cells) make it narrower"
    )


def compare_json(comparison: Comparison, exit_code: int) -> dict[str, Any]:
    """The comparison as JSON values: verdict, gate, rows with ratios, changes, cautions."""
    pairs = common_epochs(comparison.base, comparison.new)
    return {
        "base": _run_json(comparison.base),
        "new": _run_json(comparison.new),
        "verdict": comparison.verdict,
        "gate": comparison.gate,
        "exit_code": exit_code,
        "threshold": comparison.threshold,
        "compared": comparison.compared,
        "rows": [_row_json(row) for row in comparison.rows],
        "epochs": [{"epoch": a["epoch"], "base": dict(a), "new": dict(b)} for a, b in pairs],
        "changes": [vars(change) for change in comparison.changes],
        "cautions": list(comparison.cautions),
    }


def _run_words(contents: RunContents) -> str:
    moment = clean(contents.info.created.replace("T", " ")[:16], 16)
    return f"{clean(short_path(contents.path))}, {moment} UTC"


def _row_words(row: Compared) -> str:
    if row.verdict == FAILS_NOW:
        what = "the run" if row.what == "epochs" else _cell_id(row)
        return f"{what} worked in the base, and now: {clean(row.detail, 60)}"
    if row.ratio is None:
        return "no whole epoch is common to both" if row.what == "epochs" else _cell_id(row)
    where = {"cell": f"a step of {_cell_id(row)}", "best": "a row in the recommended cell",
             "epochs": f"an epoch (mean of {row.base_count})"}[row.what]  # fmt: skip
    return f"{where} takes {_ratio_words(row)} as long as in the base"


def _ratio_words(row: Compared) -> str:
    """`1.21x (1.15 .. 1.27)`."""
    if row.ratio is None:
        return ""
    write = _writer(row.ratio)
    return f"{write(row.ratio.mean)}x ({write(row.ratio.low)} .. {write(row.ratio.high)})"


def _writer(ratio: Ratio) -> Callable[[float], str]:
    return factor_writer(ratio.mean, ratio.low, ratio.high, decimals=3)


def _short_ratio(row: Compared) -> str:
    """`1.207x ±0.021`, the wider half of its interval."""
    if row.ratio is None:
        return ""
    half = max(row.ratio.high - row.ratio.mean, row.ratio.mean - row.ratio.low)
    write = _writer(row.ratio)
    return f"{write(row.ratio.mean)}x ±{write(half)}"


def _verdict_word(row: Compared) -> str:
    """The verdict; `regression` if it is worse than slower."""
    slower = row.verdict == SLOWER and row.is_regression
    return "regression" if slower else row.verdict


def _cell_id(row: Compared) -> str:
    was, now = row.base_cell, row.new_cell
    if was is None or now is None or was == now:
        known = was or now
        return known.cell_id if known else ""
    return f"{was.cell_id} against {now.cell_id}"


def _rows_section(comparison: Comparison) -> Section:
    is_probe = comparison.base.info.command == "probe"
    columns = (
        Column("cell" if is_probe else "", right=False),
        Column("base, new", optional=1),
        Column("launches" if is_probe else "epochs", optional=2),
        Column("new / base"), Column("verdict", right=False),
    )  # fmt: skip
    rows, tones = [], []
    for row in comparison.rows:
        label = {"cell": _cell_id(row), "best": f"recommended: {_cell_id(row)}",
                 "epochs": "an epoch"}[row.what]  # fmt: skip
        detail = f": {clean(row.detail, 40)}" if row.detail else ""
        rows.append(
            (
                label, f"{_time_words(row, row.base_s)}, {_time_words(row, row.new_s)}",
                f"{row.base_count}, {row.new_count}", _short_ratio(row),
                _verdict_word(row) + detail,
            )
        )  # fmt: skip
        tones.append(_TONES.get(row.verdict, "plain"))
    table = Table(columns, tuple(rows), tuple(tones))  # type: ignore[arg-type]
    blocks: list[Block] = [table]
    if is_probe:
        blocks.append(
            Paragraph(
                "Seconds of a step; a ratio above 1 is slower. Intervals are of 95 %, from the "
                "launches of both runs.", "dim",
            )
        )  # fmt: skip
    return Section("Cells" if is_probe else "Epochs", tuple(blocks))


def _time_words(row: Compared, value_s: float | None) -> str:
    if value_s is None:
        return "-"
    return format_duration(value_s) if row.what == "epochs" else step_words(value_s, None, None)


def _metrics_section(base: RunContents, new: RunContents) -> Section:
    """The metrics of equal epochs, base and new side by side."""
    columns = [Column("epoch"), Column("time, base"), Column("new"), Column("change")]
    epochs = common_epochs(base, new)
    metrics = shown_metrics(new.plugin, (row for e in epochs for row in e))
    for metric in metrics:
        name, optional = clean(metric.label or metric.name, 40), 2 + metric.left_out
        columns += [Column(f"{name}, {run}", optional=optional) for run in ("base", "new")]
    rows = []
    for was, now in epochs:
        was_s, now_s = was["wall_s"] or 0.0, now["wall_s"] or 0.0
        row = [f"{was['epoch']}", format_duration(was_s), format_duration(now_s),
               deviation_words(now_s, was_s)]  # fmt: skip
        for metric in metrics:
            row += [metric.text(was.get(metric.name)), metric.text(now.get(metric.name))]
        rows.append(tuple(row))
    return Section("Epoch by epoch", (Table(tuple(columns), tuple(rows)).without_empty_columns(),))


def _changes_section(comparison: Comparison) -> Section:
    if not comparison.changes:
        same = Paragraph("Nothing that the run folders record: machine, versions, workload, data.")
        return Section("What changed", (same,))
    columns = (Column("what", right=False), Column("base", right=False), Column("new", right=False))
    rows = tuple((c.what, c.base or "-", c.new or "-") for c in comparison.changes)
    return Section("What changed", (Table(columns, rows),))


def _run_json(contents: RunContents) -> dict[str, Any]:
    info = contents.info
    return {
        "path": str(contents.path), "command": info.command, "created": info.created,
        "status": info.status, "machine_fingerprint": info.machine_fingerprint,
        "workload_fingerprint": info.workload_fingerprint,
        "data_fingerprint": info.data_fingerprint,
    }  # fmt: skip


def _row_json(row: Compared) -> dict[str, Any]:
    cells = {"base_cell": row.base_cell, "new_cell": row.new_cell}
    ratio = row.ratio
    return {
        "what": row.what,
        "cell_id": _cell_id(row),
        **{name: None if cell is None else encode(cell) for name, cell in cells.items()},
        "base_s": row.base_s,
        "new_s": row.new_s,
        "base_count": row.base_count,
        "new_count": row.new_count,
        "ratio": None if ratio is None else ratio.mean,
        "ratio_low": None if ratio is None else ratio.low,
        "ratio_high": None if ratio is None else ratio.high,
        "verdict": row.verdict,
        "detail": row.detail,
        "decides": row.decides,
        "regression": row.is_regression,
    }
