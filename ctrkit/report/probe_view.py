"""Shows a probe: the answer first, then the matrix, then what to do."""

from __future__ import annotations

from collections.abc import Sequence

from ctrkit.core.config import Cell
from ctrkit.core.records import Finding, Recommendation, RunInfo, TrialRecord
from ctrkit.core.units import format_bytes, format_duration, format_factor
from ctrkit.report.blocks import (
    Block,
    Bullets,
    Code,
    Column,
    Facts,
    Paragraph,
    Section,
    Table,
)
from ctrkit.report.contents import RunContents
from ctrkit.report.matrix_view import (
    NOT_RUN,
    cell_results,
    failure_lines,
    matrix_table,
    not_run_lines,
)
from ctrkit.report.script_view import is_said_by_rows, script_rows, script_sections
from ctrkit.report.shell_lines import command_lines, dataloader_lines, kept_options, short_path
from ctrkit.report.step_view import stage_sections
from ctrkit.report.words import (
    cell_words,
    clean,
    epochs_projected,
    flag_words,
    no_total_words,
    percent,
    plural,
    projection_words,
    rate_words,
    sentence,
    step_words,
)

#: The conditions under which a projection is valid.
HOLDS_FOR = "a run started now, if the machine stays as busy as it was"


def probe_sections(contents: RunContents) -> list[Section]:
    """The sections of a probe's report."""
    recommendation = contents.recommendation
    sections = [
        _answer(contents, recommendation) if recommendation is not None else _no_answer(contents)
    ]
    if recommendation is not None and recommendation.options:
        sections.append(_options(recommendation))
    if contents.trials:
        sections += _matrix_sections(contents)
    if recommendation is not None:
        sections += stage_sections(contents.trials, recommendation)
        sections += _use(contents, recommendation)
    return sections


def _answer(contents: RunContents, recommendation: Recommendation) -> Section:
    info, best = contents.info, recommendation
    epochs = epochs_projected(best, info.planned_epochs)
    rows = [("use", cell_words(best.cell)), ("because", clean(best.reason))]
    if best.script is not None:
        rows += script_rows(best.script, best, _data_wait(contents.trials, best.script.as_written))
    if best.projected_first_epoch_s is not None:
        rows.append(("first epoch", format_duration(best.projected_first_epoch_s)))
    if best.projected_epoch_s is not None:
        rows.append(
            ("an epoch" if best.projected_first_epoch_s is None else "later ones", projection_words(
                best.projected_epoch_s, best.projected_epoch_s_low, best.projected_epoch_s_high
            ))
        )  # fmt: skip
    if best.projected_total_s is not None:
        rows.append(
            (plural(epochs, "epoch"), projection_words(
                best.projected_total_s, best.projected_total_s_low, best.projected_total_s_high
            ))
        )  # fmt: skip
    else:
        rows.append(("whole run", f"not projected: {no_total_words(best)}"))
    if best.projected_epoch_s is not None:
        rows.append(("holds for", HOLDS_FOR))
    rows += [("caution", words) for words in flag_words(best.flags)]
    if info.status != "done":
        rows.append(("status", status_words(info)))
    rows += [
        ("note" if finding.share is None else "limited by", finding_words(finding))
        for finding in sorted(best.findings, key=lambda finding: finding.share is None)
        if not (best.script is not None and is_said_by_rows(finding))
    ]
    rows += [("tied with", cell_words(cell)) for cell in best.tied if cell != best.cell]
    if best.runner_up is not None and best.runner_up not in best.tied:
        rows.append(("runner-up", cell_words(best.runner_up)))
    return Section("Answer", (Facts(tuple(row for row in rows if row[1])),))


def _data_wait(trials: Sequence[TrialRecord], cell: Cell) -> float | None:
    """The share of a step in which this cell waits for data; None if it was not really run."""
    results = (result for result in cell_results(trials) if result.record.cell == cell)
    return next((one.record.data_wait_share for one in results if one.verdict == "ok"), None)


def status_words(info: RunInfo) -> str:
    """`interrupted: Ctrl-C after 12 trials`."""
    reason = clean(info.status_reason)
    return clean(info.status, 60) + (f": {reason}" if reason else "")


def finding_words(finding: Finding) -> str:
    """A finding in words: what limits the step, what removing it is worth, how sure that is."""
    text = clean(finding.text).rstrip(".")
    if finding.stage.lower() not in text.lower():
        text = f"{clean(finding.stage, 40)}: {text}" if text else clean(finding.stage, 40)
    parts = [text]
    if finding.share is not None and "%" not in text:
        parts.append(f"It takes {percent(finding.share)} of a step")
    if finding.worth_x is not None and "faster" not in text:
        parts.append(f"Without it, a step would be {format_factor(finding.worth_x)} faster")
    if finding.confidence:
        parts.append(f"Confidence: {clean(finding.confidence, 60)}")
    return ". ".join(parts) + "."


def _no_answer(contents: RunContents) -> Section:
    """What is known and what is missing if no cell is recommended."""
    results = cell_results(contents.trials)
    measured = [r for r in results if r.verdict == "ok"]
    predicted = [r for r in results if r.verdict == "predicted"]
    failed = [r for r in results if r.failed]
    not_run = [r for r in results if r.verdict in NOT_RUN]
    info = contents.info
    rows = [("status", status_words(info))] if info.status != "done" else []
    for label, group in (
        ("run", measured), ("predicted", predicted), ("failed", failed), ("not run", not_run),
    ):  # fmt: skip
        if group:
            rows.append((label, plural(len(group), "cell")))
    if measured:
        best = measured[0].record
        step = step_words(best.step_s, best.step_s_low, best.step_s_high) or "not measured"
        rows.append(("best so far", f"{cell_words(best.cell)}: {step} a step"))
        if best.projected_total_s is None and best.projected_epoch_s is not None:
            rows.append(("projected", f"{format_duration(best.projected_epoch_s)} for an epoch"))
        if best.projected_total_s is not None:
            rows.append(
                ("projected", projection_words(
                    best.projected_total_s, best.projected_total_s_low, best.projected_total_s_high
                ) + " for the whole run")
            )  # fmt: skip
    if info.status == "done" and info.status_reason:
        lacking = sentence(info.status_reason)
    elif not contents.trials:
        lacking = "No trial was recorded, so nothing is known of any configuration."
    elif measured:
        lacking = (
            "The probe ended before it could compare the configurations; give a longer --budget."
        )
    elif predicted:
        lacking = "No configuration was fully run, so none is recommended: give a longer --budget."
    elif failed and not not_run:
        lacking = "No configuration can run here: the reasons are below."
    else:
        lacking = (
            "No configuration was measured: give a longer --budget, or name other configurations."
        )
    facts = (Facts(tuple(rows)),) if rows else ()
    return Section("No recommendation", (*facts, Paragraph(lacking)))


def _options(recommendation: Recommendation) -> Section:
    rows = tuple(
        (clean(option.text), format_duration(option.projected_total_s))
        for option in recommendation.options
    )
    columns = (Column("instead", right=False), Column("whole run"))
    return Section("Options", (Table(columns, rows),))


def _matrix_sections(contents: RunContents) -> list[Section]:
    trials = contents.trials
    sections = []
    table = matrix_table(trials, contents.recommendation)
    if table.rows:
        note = _predicted_words(contents)
        sections.append(Section("Cells", (table, *([Paragraph(note, "dim")] if note else []))))
    failures, not_run = failure_lines(trials), not_run_lines(trials)
    if failures:
        sections.append(Section("Failed", (Bullets(tuple(failures), "bad"),)))
    if not_run:
        sections.append(Section("Not run", (Bullets(tuple(not_run), "dim"),)))
    alone = [r for r in trials if r.kind in ("compute", "loader") and r.verdict == "ok"]
    if alone:
        columns = (
            Column("alone", right=False), Column("cell", right=False),
            Column("a step"), Column("rows/s"), Column("peak memory", optional=1),
        )  # fmt: skip
        rows = tuple(
            (
                "computing" if r.kind == "compute" else "loading",
                clean(r.cell.name, 60),
                step_words(r.step_s, r.step_s_low, r.step_s_high),
                rate_words(r.rows_per_s),
                format_bytes(r.peak_rss_bytes) if r.peak_rss_bytes is not None else "",
            )
            for r in alone
        )
        table = Table(columns, rows).without_empty_columns()
        sections.append(Section("Ceilings", (table,)))
    return sections


def _predicted_words(contents: RunContents) -> str:
    """An explanation of predicted rows, also of those that seem faster than the best; or empty."""
    results = cell_results(contents.trials)
    predicted = [result.record for result in results if result.verdict == "predicted"]
    if not predicted:
        return ""
    words = (
        "predicted: did not run; computed from the training step and the loader, each measured "
        "alone. If a measured row contradicts it, trust the measured one."
    )
    best = contents.recommendation
    if best is None:
        return words
    of_best = best.projected_total_s or best.projected_epoch_s
    of_others = [record.projected_total_s or record.projected_epoch_s for record in predicted]
    faster = sum(1 for one in of_others if one and of_best and one < of_best)
    if faster:
        words += (
            f" {plural(faster, 'predicted row')} may be faster than the best: a longer --budget "
            "runs more of them."
        )
    return words


def _use(contents: RunContents, recommendation: Recommendation) -> list[Section]:
    file = short_path(contents.path / "recommendation.json")
    script, answer = contents.info.workload.script, recommendation.script
    if script is not None and answer is not None:
        changed = recommendation.cell != answer.as_written
        return script_sections(script, answer, file, changed=changed)
    kept = kept_options(contents.info.argv)
    lines = [
        *command_lines(["ctrkit", "train", "--auto-device", *kept]),
        *command_lines(["ctrkit", "train", "--config", file, *kept]),
    ]
    blocks: list[Block] = [
        Paragraph("Train with it (the newest probe that fits, or this one):"),
        Code(tuple(lines), "sh"),
    ]  # fmt: skip
    if recommendation.dataloader_kwargs:
        blocks += [
            Paragraph("In your own code:"),
            Code(tuple(dataloader_lines(recommendation.dataloader_kwargs)), "python"),
        ]
    return [Section("Use it", tuple(blocks))]
