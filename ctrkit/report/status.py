"""Shows the status of a real run beside its figures: options, data integrity, summary."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from ctrkit.core.config import encode
from ctrkit.core.errors import UsageError
from ctrkit.core.plugins import KnownEpoch, Plugin
from ctrkit.core.records import RunInfo
from ctrkit.core.registry import plugin_and_settings, plugin_of
from ctrkit.core.run_time import RunTime, projected_time
from ctrkit.core.units import format_count, format_duration
from ctrkit.report.blocks import Block, Bullets, Code, Column, Paragraph, Report, Section, Table
from ctrkit.report.contents import DIED, UNKNOWN, RunContents, is_partial
from ctrkit.report.criteria import (
    Classification,
    classification_json,
    classify,
    criteria_section,
)
from ctrkit.report.incidents import summary_words
from ctrkit.report.matrix_view import cell_results
from ctrkit.report.shell_lines import command_lines
from ctrkit.report.words import (
    cell_words,
    clean,
    deviation_words,
    no_total_words,
    plural,
    projection_words,
    sentence,
)


def judgement_sections(contents: RunContents) -> list[Section]:
    """Sections on a real run: its class, what can be done now, whether it ran as it should."""
    info = contents.info
    if info.command == "probe" or info.workload.target == UNKNOWN:
        return []
    found = _classification(contents)
    sections = [] if found is None else [criteria_section(found)]
    if info.status != "done":
        sections.append(_options(contents))
    return [*sections, _integrity(contents)]


def judgement_json(contents: RunContents) -> dict[str, Any]:
    """`classification`: the class of a real run as JSON; null if it has none."""
    return {"classification": classification_json(_classification(contents))}


def _classification(contents: RunContents) -> Classification | None:
    info, epochs = contents.info, contents.epochs
    if info.command == "probe" or info.workload.target == UNKNOWN:
        return None
    cut = bool(epochs) and is_partial(epochs[-1], info.sizes)
    return classify(info, epochs, cut)


def status_update(report: Report, contents: RunContents) -> Report:
    """The report with a summary first, known runs beside it, and what was done, to paste."""
    head, rest = report.sections[:1], report.sections[1:]
    before = [Section("Summary", (Paragraph(" ".join(_summary(contents))),))]
    after = [_what_was_done(contents)]
    if (section := _against_known(contents)) is not None:
        after.insert(0, section)
    return Report(report.title, report.subtitle, (*head, *before, *rest, *after))


# ---- options -------------------------------------------------------------------------------------


def _options(contents: RunContents) -> Section:
    """What can be done with an unfinished run, and how long each option takes."""
    info, done = contents.info, len(contents.epochs)
    planned = _planned(info)
    time = contents.measured_time or projected_time(info.projection)
    spent_s = sum(row["wall_s"] or 0.0 for row in contents.epochs)
    known = plural(planned, "epoch") if planned else "how many epochs is not known"
    rows = [_option(f"continue as is: {known}", done, planned or None, time, spent_s)]
    fewer = sorted({math.ceil(planned / 2), math.ceil(planned / 3)}, reverse=True)
    rows += [
        _option(f"reduce the epochs: stop after {count}", done, count, time, spent_s)
        for count in fewer
        if done < count < planned
    ]
    rows.append(_other_cell(contents, done, planned or None, spent_s))
    rows.append(_option(f"stop and report {plural(done, 'epoch')}", done, done, time, spent_s))
    columns = (Column("option", right=False), Column("to go"), Column("whole run"))
    blocks: list[Block] = [Table(columns, tuple(rows))]
    if contents.measured_time is None:
        pace = "no pace is known" if time is None else "at the projected pace"
        blocks.append(Paragraph(f"No whole epoch is finished: {pace}.", "dim"))
    return Section("Options", tuple(blocks))


def _option(
    text: str, done: int, epochs: int | None, time: RunTime | None, spent_s: float
) -> tuple[str, str, str]:
    """A row: what remains until `epochs` are done, and the time of the whole run then."""
    if epochs is None:
        return text, "not known", "not known"
    if epochs <= done:
        return text, "none", format_duration(spent_s)
    if time is None:
        return text, "not known", "not known"
    left_s = time.epochs_s(epochs, begin=done)
    return text, format_duration(left_s), format_duration(spent_s + left_s)


def _other_cell(
    contents: RunContents, done: int, planned: int | None, spent_s: float
) -> tuple[str, str, str]:
    """A row for another device or cell; only a probe's recommendation has a projected time."""
    info = contents.info
    best = info.projection
    if best is not None and best.projected_epoch_s is not None and best.cell != info.cell:
        text = f"change to the recommended configuration: {cell_words(best.cell)}"
        return _option(text, done, planned, projected_time(best), spent_s)
    there = [d for d in info.device_names if info.cell is not None and d != info.cell.device]
    which = f" ({clean(', '.join(there), 40)} is there)" if there else ""
    return _option(
        f"change the device{which}: `ctrkit probe` measures it", done, planned, None, spent_s
    )


def _planned(info: RunInfo) -> int:
    return info.planned_epochs or 0


# ---- data integrity ------------------------------------------------------------------------------


def _integrity(contents: RunContents) -> Section:
    """The run's settings compared with the phase file, and whether every epoch saw all rows."""
    info = contents.info
    blocks: list[Block] = []
    plugin, settings = plugin_and_settings(info.workload)
    if title := plugin.title(settings):
        expected, where = _phase_file(info, plugin, title)
        if expected is None:
            blocks.append(Paragraph(where))
        else:
            blocks += _setting_blocks(info, expected, where)
    blocks.append(Bullets(tuple(_data_lines(contents))))
    return Section("Data integrity", tuple(blocks))


def _phase_file(info: RunInfo, plugin: Plugin, name: str) -> tuple[dict[str, Any] | None, str]:
    """The phase file's current values and its name; else why it cannot be compared."""
    named = [w.partition("=")[2] for w in info.argv if w.startswith("--phase=")]
    named += [b for a, b in zip(info.argv, info.argv[1:], strict=False) if a == "--phase"]
    for candidate in (*named[-1:], name):
        if candidate in plugin.phase_names() or candidate.endswith(".toml"):
            try:
                return encode(plugin.read_settings(candidate, {})), clean(candidate, 120)
            except UsageError as error:
                return None, f"ctrkit cannot compare the phase file: {clean(str(error), 300)}."
    return None, f"There is no phase file {clean(name, 120)} here to compare the settings with."


def _setting_blocks(info: RunInfo, expected: dict[str, Any], where: str) -> list[Block]:
    ran = dict(info.workload.settings)
    if "epochs" in ran:
        ran["epochs"] = _planned(info)
    if "batch_size" in ran and info.cell is not None:
        ran["batch_size"] = info.cell.batch_size
    wanted = {k: v for k, v in expected.items() if k != "name" and not isinstance(v, dict)}
    rows = [
        (clean(key, 60), clean(str(value), 60), clean(str(ran.get(key)), 60))
        for key, value in wanted.items()
        if value != ran.get(key)
    ]
    if not rows:
        text = f"All settings were those of {where}."
        return [Paragraph(text, "good")]
    columns = (Column("setting", right=False), Column("phase file"), Column("ran"))
    differ = "differs" if len(rows) == 1 else "differ"
    text = f"{plural(len(rows), 'setting')} of this run {differ} from {where}:"
    return [Paragraph(text, "bad"), Table(columns, tuple(rows))]


def _data_lines(contents: RunContents) -> Iterator[str]:
    info, epochs = contents.info, contents.epochs
    fingerprint = clean(info.data_fingerprint or "", 40)
    yield f"data fingerprint: {fingerprint or 'not known'}"
    if info.workload_fingerprint:
        yield f"workload fingerprint: {clean(info.workload_fingerprint, 40)}"
    rows = info.sizes.train_rows if info.sizes else None
    if rows is None or not epochs:
        return
    fewer = [f"{row['epoch']}" for row in epochs if is_partial(row, info.sizes)]
    if fewer:
        yield f"epochs with fewer than {format_count(rows)} training rows: {', '.join(fewer)}"
    else:
        yield f"every finished epoch had all {format_count(rows)} training rows"


# ---- summary, known runs, what was done ----------------------------------------------------------


def _summary(contents: RunContents) -> Iterator[str]:
    """The state of the run in a few sentences."""
    info, best = contents.info, contents.recommendation
    if info.command == "probe":
        if best is None:
            yield sentence(f"No configuration is recommended ({clean(info.status, 40)})")
            return
        yield sentence(f"Recommended: {cell_words(best.cell)}")
        if best.projected_total_s is not None:
            yield "The whole run is projected to take " + projection_words(
                best.projected_total_s, best.projected_total_s_low, best.projected_total_s_high
            ) + "."  # fmt: skip
        else:
            yield sentence(f"The whole run is not projected: {no_total_words(best)}")
        return
    status = "has died" if info.status == DIED else f"is {clean(info.status, 40)}"
    of = f" of {plural(_planned(info), 'epoch')}" if _planned(info) else " epochs"
    yield f"The run {status}: {len(contents.epochs)}{of} finished."
    time, projected = contents.measured_time, projected_time(info.projection)
    if time is not None:
        words = deviation_words(time.epoch_s, projected.epoch_s) if projected else ""
        against = f", {words} on projected" if words else ""
        yield f"An epoch takes {format_duration(time.epoch_s)}{against}."
    if figures := contents.best:
        name, value, epoch = figures
        yield f"Best {name}: {value} in {epoch}."
    found = _classification(contents)
    if found is not None:
        name = clean(found.tier, 60) if found.tier else "no class"
        unfinished = f"It is incomplete for a class: {found.incomplete}."
        yield unfinished if found.incomplete else f"It meets {name}."
    if words := summary_words(contents.incidents):
        yield sentence(words)


def _against_known(contents: RunContents) -> Section | None:
    """The first epoch beside those of the original runs, if the workload is the same."""
    plugin = plugin_of(contents.info.workload.target)
    first = next((row for row in contents.epochs if row["epoch"] == 1), None)
    known_epochs = [known for known in plugin.known_epochs if known.epoch == 1]
    if not known_epochs or first is None:
        return None
    columns = [Column("epoch 1", right=False), Column("this run")]
    for known in known_epochs:
        columns += [Column(known.run), Column(f"against {known.run}")]
    rows = []
    for column in dict.fromkeys(name for known in known_epochs for name in known.metrics):
        value = first.get(column)
        row = [clean(plugin.metric(column).label, 40), "" if value is None else f"{value:.4f}"]
        for known in known_epochs:
            row += _known_cells(contents.info, known, column, value)
        rows.append(tuple(row))
    table = Table(tuple(columns), tuple(rows))
    return Section("Against the known runs", (table, Paragraph(plugin.known_note)))


def _known_cells(info: RunInfo, known: KnownEpoch, column: str, value: float | None) -> list[str]:
    theirs = known.metrics.get(column)
    if theirs is None:
        return ["", ""]
    if value is None:
        return [f"{theirs:.4f}", ""]
    same = known.comparable_if.get(column, {})
    if any(info.workload.settings.get(key) != wanted for key, wanted in same.items()):
        return [f"{theirs:.4f}", "not comparable"]
    return [f"{theirs:.4f}", f"{value - theirs:+.4f}"]


def _what_was_done(contents: RunContents) -> Section:
    info = contents.info
    lines = []
    if info.command == "probe":
        results = cell_results(contents.trials)
        failed = sum(result.failed for result in results)
        launched = sum(record.launch > 0 for record in contents.trials)
        lines.append(
            f"{plural(launched, 'trial')} of {plural(len(results), 'cell')}, {failed} failed"
        )
    else:
        lines.append(f"{plural(len(contents.epochs), 'epoch')} trained and validated")
        if info.cell is not None:
            lines.append(f"ran in {cell_words(info.cell)}")
        lines.append(plural(len(contents.incidents), "incident"))
    if info.wall_s is not None:
        lines.append(f"took {format_duration(info.wall_s)}")
    command = tuple(command_lines(["ctrkit", *info.argv]))
    return Section("What was done", (Bullets(tuple(lines)), Code(command, "sh")))
