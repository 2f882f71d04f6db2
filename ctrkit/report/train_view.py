"""Shows a real run: its status, its epochs beside known ones, actual time against projected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ctrkit.core.config import RunSizes
from ctrkit.core.epochs import EpochRow
from ctrkit.core.plugins import KnownEpoch, Metric
from ctrkit.core.progress import Stage
from ctrkit.core.records import Recommendation
from ctrkit.core.run_time import projected_epoch, projected_time
from ctrkit.core.units import format_count, format_duration
from ctrkit.report.blocks import (
    Block,
    Bullets,
    Code,
    Column,
    Facts,
    Paragraph,
    Section,
    Table,
    Tone,
)
from ctrkit.report.contents import ELSEWHERE, UNKNOWN, RunContents, is_partial
from ctrkit.report.epoch_figures import shown_metrics
from ctrkit.report.incidents import incidents_section, moved_words
from ctrkit.report.ledger_view import ledger_section
from ctrkit.report.matrix_view import failure_lines
from ctrkit.report.probe_view import status_words
from ctrkit.report.shell_lines import command_lines, short_path
from ctrkit.report.words import (
    cell_words,
    clean,
    deviation_words,
    flag_words,
    plural,
    projection_words,
)


def train_sections(contents: RunContents) -> list[Section]:
    """The sections of a real run's report."""
    sections = [_status(contents)]
    if contents.epochs:
        sections.append(epochs_section(contents))
    sections.append(projection_section(contents))
    if contents.ledger:
        cell = contents.info.cell
        sections.append(ledger_section(contents.ledger, cell.device if cell else "cpu"))
    failures = failure_lines(contents.trials)
    if failures:
        sections.append(Section("Ended", (Bullets(tuple(failures), "bad"),)))
    if contents.incidents:
        sections.append(incidents_section(contents.incidents))
    if contents.info.warnings:
        lines = (
            f"{clean(text)}{f' ({format_count(count)} times)' if count > 1 else ''}"
            for text, count in contents.info.warnings.items()
        )
        sections.append(Section("Warnings of torch's own", (Bullets(tuple(lines)),)))
    return sections


def _status(contents: RunContents) -> Section:
    info, epochs = contents.info, contents.epochs
    rows = [("status", status_words(info))]
    planned = info.sizes.epochs if info.sizes else None
    rows.append(("epochs", f"{len(epochs)} finished" + (f" of {planned}" if planned else "")))
    rows += [(label, words) for label, words in progress_rows(contents)]
    if info.cell is not None:
        rows.append(("cell", cell_words(info.cell)))
    if best := contents.best:
        rows.append(("best", f"{best[0]} {best[1]} in {best[2]}"))
    blocks: list[Block] = [Facts(tuple(rows))]
    if info.status != "done" and not contents.alive:
        if info.workload.target == UNKNOWN:
            blocks.append(Paragraph("Without its run.json it cannot be resumed."))
        elif info.status == ELSEWHERE:
            blocks.append(Paragraph("Resume it only if it no longer runs where it was started."))
        elif contents.has_checkpoint:
            command = ["ctrkit", "train", "--resume", short_path(contents.path)]
            blocks += [Paragraph("Continue it:"), Code(tuple(command_lines(command)), "sh")]
        else:
            blocks.append(Paragraph("It left no checkpoint: it cannot be resumed."))
    return Section("Run", tuple(blocks))


def progress_rows(contents: RunContents) -> list[tuple[str, str]]:
    """The loop's position now, or at its end."""
    progress = contents.progress
    if progress is None or contents.info.status == "done":
        return []
    where = progress.stage.label
    if progress.stage in (Stage.FIRST_BATCH, Stage.STEP, Stage.VALIDATION, Stage.CHECKPOINT):
        of = f" of {format_count(progress.steps)}" if progress.steps else ""
        where += f", epoch {progress.epoch}, step {format_count(progress.step)}{of}"
    if progress.loss == progress.loss:
        where += f", loss {progress.loss:.4f}"
    rows = [("now" if contents.alive else "ended in", where)]
    if contents.alive and contents.silent_s is not None:
        rows.append(("last sign", f"{format_duration(contents.silent_s)} ago"))
    return rows


def epochs_section(contents: RunContents) -> Section:
    """A row for each epoch, with those of known runs below."""
    plugin, info = contents.plugin, contents.info
    known, metrics = plugin.known_epochs, shown_metrics(plugin, contents.epochs)
    columns = [Column("epoch", right=False)]
    columns += [
        Column(clean(metric.label or metric.name, 40), optional=metric.left_out)
        for metric in metrics
    ]
    columns += [Column("lr", optional=1), Column("time")]
    texts = {(one.epoch, one.column): clean(one.text, 20) for one in contents.odd}
    rows = [_epoch_cells(row, metrics, texts, info.sizes) for row in contents.epochs]
    rows += [_known_cells(epoch, metrics) for epoch in known]
    tones: list[Tone] = ["plain"] * len(contents.epochs)
    tones += ["dim"] * len(known)
    blocks: list[Block] = [Table(tuple(columns), tuple(rows), tuple(tones)).without_empty_columns()]
    if any(is_partial(row, info.sizes) for row in contents.epochs):
        blocks.append(Paragraph("* not all rows of the epoch were trained on.", "dim"))
    if known:
        blocks.append(Paragraph(plugin.known_note, "dim"))
    if notes := contents.epoch_notes:
        blocks.append(Bullets(notes))
    return Section("Epochs", tuple(blocks))


def _epoch_cells(
    row: EpochRow,
    metrics: Sequence[Metric],
    texts: Mapping[tuple[int, str], str],
    sizes: RunSizes | None,
) -> tuple[str, ...]:
    lr, epoch = row["learning_rate"], int(row["epoch"] or 0)
    return (
        f"{epoch}" + ("*" if is_partial(row, sizes) else ""),
        *(
            texts.get((epoch, metric.name)) or metric.text(row.get(metric.name))
            for metric in metrics
        ),
        "" if lr is None else f"{lr:.1e}" if lr else "0",
        "" if row["wall_s"] is None else format_duration(row["wall_s"]),
    )


def _known_cells(epoch: KnownEpoch, metrics: Sequence[Metric]) -> tuple[str, ...]:
    figures = (metric.text(epoch.metrics.get(metric.name)) for metric in metrics)
    return (f"{epoch.run}, {epoch.epoch}", *figures, "", "")


def projection_section(contents: RunContents) -> Section:
    """The time of each epoch beside the projected one."""
    projection, info = contents.info.projection, contents.info
    if projection is None or projection.projected_epoch_s is None:
        text = "This run was started without a projection; `ctrkit probe` makes one."
        return Section("Actual against projected", (Paragraph(text),))
    whole = contents.whole_epochs
    blocks: list[Block] = []
    if whole:
        blocks.append(_against_table(whole, projection))
    rows = [("projected epoch", projection_words(
        projection.projected_epoch_s, projection.projected_epoch_s_low,
        projection.projected_epoch_s_high,
    ))]  # fmt: skip
    rows.append(("projected run", _projected_run(projection, info.planned_epochs)))
    rows += _pace_rows(contents)
    rows += [("caution", words) for words in flag_words(projection.flags)]
    rows += [("caution", words) for words in [moved_words(contents.incidents)] if words]
    if not whole:
        blocks.append(Paragraph("No whole epoch is finished yet, so there is nothing to compare."))
    return Section("Actual against projected", (*blocks, Facts(tuple(rows))))


def _projected_run(projection: Recommendation, epochs: int | None) -> str:
    """The projected run, adjusted to this run's number of epochs."""
    time, total_s = projected_time(projection), projection.projected_total_s
    if total_s is None:
        return "-" if epochs is None or time is None else format_duration(time.total_s(epochs))
    if epochs is not None and time is not None and time.epochs_in(total_s) != epochs:
        return format_duration(time.total_s(epochs))
    return projection_words(
        total_s, projection.projected_total_s_low, projection.projected_total_s_high
    )


def _against_table(whole: Sequence[EpochRow], projection: Recommendation) -> Table:
    columns = (Column("epoch"), Column("took"), Column("against projected"),
               Column("interval", right=False))  # fmt: skip
    rows = []
    for row in whole:
        took_s = row["wall_s"] or 0.0
        projected_s = projected_epoch(projection, row["epoch"])[0] or 0.0
        rows.append(
            (
                f"{row['epoch']}", format_duration(took_s), deviation_words(took_s, projected_s),
                interval_words(took_s, projection, row["epoch"]),
            )
        )  # fmt: skip
    return Table(columns, tuple(rows)).without_empty_columns()


def interval_words(took_s: float, projection: Recommendation, epoch: float | None = None) -> str:
    """`inside`, `longer` or `shorter` than the projected interval of an epoch."""
    _, low, high = projected_epoch(projection, epoch)
    if low is None:
        return ""
    if high is not None and took_s > high:
        return "longer"
    return "shorter" if took_s < low else "inside"


def _pace_rows(contents: RunContents) -> list[tuple[str, str]]:
    """The mean epoch and the whole run at this pace; a finished run's own time."""
    time, info = contents.measured_time, contents.info
    if time is None:
        return []
    projected = projected_time(info.projection)
    against = f" ({deviation_words(time.epoch_s, projected.epoch_s)})" if projected else ""
    rows = [("mean epoch", format_duration(time.epoch_s) + against)]
    planned = info.planned_epochs
    if planned and info.status != "done":
        left_s = time.epochs_s(planned, begin=len(contents.epochs))
        rows.append(
            ("at this pace", f"{format_duration(time.epochs_s(planned))} for "
             f"{plural(planned, 'epoch')}, {format_duration(left_s)} still to go")
        )  # fmt: skip
    return rows
