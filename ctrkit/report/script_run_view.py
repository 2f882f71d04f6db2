"""Shows the real run of a script: how it ended, its epochs, where its time went."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from ctrkit.core.command_line import without_secrets
from ctrkit.core.config import Cell
from ctrkit.core.errors import UsageError
from ctrkit.core.files import read_json
from ctrkit.measure.ranks import read_rank_times
from ctrkit.report.blocks import Block, Bullets, Code, Facts, Paragraph, Section
from ctrkit.report.contents import RunContents
from ctrkit.report.incidents import incidents_section
from ctrkit.report.ledger_view import ledger_section
from ctrkit.report.probe_view import status_words
from ctrkit.report.ranks_view import ranks_section
from ctrkit.report.shell_lines import command_lines, short_path
from ctrkit.report.train_view import epochs_section, progress_rows, projection_section
from ctrkit.report.words import axis_label, clean, plural


def script_run_sections(contents: RunContents) -> list[Section]:
    """The sections of the report."""
    seen = _json(contents, "script.json")
    sections = [_status(contents, seen)]
    if contents.epochs:
        sections.append(epochs_section(contents))
    if contents.info.projection is not None or contents.epochs:
        sections.append(projection_section(contents))
    if contents.ledger:
        device = str(seen.get("device") or "cpu")
        sections.append(ledger_section(contents.ledger, device))
    now_s = time.monotonic() if contents.alive else None
    ranks = read_rank_times(contents.path / "child", now_s)
    if len(ranks) > 1:
        sections.append(ranks_section(ranks))
    if contents.incidents:
        # a script's cell does not say where it ran
        cellless = {"cell_before": None, "cell_after": None}
        sections.append(incidents_section([{**one, **cellless} for one in contents.incidents]))
    notes = [str(one) for one in (seen.get("problem"), *(seen.get("notes") or ())) if one]
    if notes:
        sections.append(Section("Seen of the script", (Bullets(tuple(map(clean, notes))),)))
    return sections


def _status(contents: RunContents, seen: dict[str, Any]) -> Section:
    info = contents.info
    rows = [("status", status_words(info)), ("epochs", _epochs_words(contents, seen))]
    rows += progress_rows(contents)
    rows.append(("configuration", configuration_words(contents)))
    if loader := _loader_words(seen):
        rows.append(("train loader", loader))
    rows.append(("output", short_path(contents.path / "child" / "stdout.txt")))
    blocks: list[Block] = [Facts(tuple(rows))]
    script = info.workload.script
    if script is not None and info.status != "done" and not contents.alive:
        command = ["ctrkit", "train", "--", *without_secrets(script.command)]
        again = "Start it again; it continues only if it loads its own checkpoint:"
        blocks.append(Paragraph(again))
        blocks.append(Code(tuple(command_lines(command)), "sh"))
    return Section("Run", tuple(blocks))


def _epochs_words(contents: RunContents, seen: dict[str, Any]) -> str:
    done = f"{len(contents.epochs)} finished"
    planned = contents.info.planned_epochs
    if planned is None:
        return f"{done}; how many there are is not known"
    most = "at most " if seen.get("epochs_at_most") else ""
    source = clean(str(seen.get("epochs_from") or "--epochs"), 80)
    return f"{done} of {most}{planned} ({source})"


def put_in_words(cell: Cell, axes: Sequence[str]) -> str:
    """`workers 4, fork, prefetch 2, persistent, no pin`."""
    return ", ".join(axis_label(axis, getattr(cell, axis, None)) for axis in axes)


def configuration_words(contents: RunContents) -> str:
    """The values that ctrkit changed; the rest of a script's cell is unknown."""
    put_in = _json(contents, "spec.json").get("put_in") or []
    cell = contents.info.cell
    if not put_in or cell is None:
        return "as written"
    return f"put in: {put_in_words(cell, put_in)}"


def _loader_words(seen: dict[str, Any]) -> str:
    """`train.py:42, as written 4 workers (fork, prefetch 2), batch 64`."""
    number = seen.get("train_loader")
    loaders = [one for one in seen.get("loaders") or () if isinstance(one, dict)]
    found = next((one for one in loaders if number is not None and one.get("number") == number), {})
    if not found:
        return ""
    parts = []
    if found.get("file"):
        parts.append(f"{str(found['file']).rpartition('/')[2]}:{found.get('line')}")
    workers = found.get("workers") or 0
    how = ", ".join(
        f"{name}{value}"
        for name, value in (
            ("", found.get("start_method") or seen.get("default_start_method")),
            ("prefetch ", found.get("prefetch")),
        )
        if value
    )
    written = plural(workers, "worker") if workers else "no workers"
    parts.append(f"as written {written}" + (f" ({how})" if workers and how else ""))
    if found.get("batch_size"):
        parts.append(f"batch {found['batch_size']}")
    return clean(", ".join(parts), 160)


def _json(contents: RunContents, name: str) -> dict[str, Any]:
    try:
        value = read_json(contents.path / "child" / name)
    except UsageError:
        return {}
    return value if isinstance(value, dict) else {}
