"""`ctrkit data synth | prepare | info`: checks options, makes or reads data, prints a summary."""

from __future__ import annotations

import csv
import json
import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ctrkit.commands.preparing import StageDisplay
from ctrkit.core.config import encode
from ctrkit.core.environment import usable_cpus
from ctrkit.core.errors import UsageError
from ctrkit.core.files import finite
from ctrkit.core.runs import check_out_folder
from ctrkit.core.units import (
    format_bytes,
    format_count,
    format_duration,
    format_percent,
    format_time,
    format_value,
    parse_bytes,
)
from ctrkit.ctr.data.store import SPLITS, FileAccount, Reading, Store, StoreMeta
from ctrkit.report.blocks import (
    Block,
    Bullets,
    Code,
    Column,
    Facts,
    Paragraph,
    Report,
    Section,
    Table,
    Tone,
)
from ctrkit.report.building import build_display
from ctrkit.report.terminal import print_report

FORMATS = ("store", "tianchi")
_TABLE_COLUMNS = ("user", "item", "time", "label")
_NOTABLE_LOSS = 0.01  # a larger share of dropped rows is shown as a warning
_LEAST_MEMORY_BYTES = 64 * 1024**2  # below this DuckDB cannot even sort a chunk


def synth(
    *,
    out: Path,
    rows: int | None = None,
    users: int | None = None,
    items: int | None = None,
    behaviors: int | None = None,
    seed: int = 42,
    format_: str = "store",
) -> None:
    """Generate data with a planted signal.

    Args:
        out: the folder to write, missing or empty.
        rows: impressions; None for the reference scale, also for the next two.
        users: users with a profile.
        items: ads.
        behaviors: approximate number of events, for `tianchi`; None: as many per user as the
            reference.
        seed: equal seeds give equal data.
        format_: `store`, or `tianchi` for the four CSV files with their dirt.

    Raises:
        UsageError: an unknown format, a size out of range, or a folder that cannot be written.
    """
    if format_ not in FORMATS:
        raise UsageError(f"--format {format_}: unknown; choose {' or '.join(FORMATS)}")
    check_out_folder(out)
    if behaviors is not None and format_ != "tianchi":
        raise UsageError("--behaviors belongs to --format tianchi")
    asked = {"rows": rows, "users": users, "items": items, "behaviors": behaviors}
    sizes = {key: size for key, size in asked.items() if size is not None}
    began_s = time.monotonic()
    if format_ == "store":
        from ctrkit.ctr.data.synthetic import generate_store

        with build_display() as on_progress:
            generate_store(out, **sizes, seed=seed, on_progress=on_progress)
        _print_made(out, began_s)
        return
    from ctrkit.ctr.data.tianchi import generate_tianchi

    with build_display() as on_progress:
        generate_tianchi(out, **sizes, seed=seed, on_progress=on_progress)
    _print_files(out, began_s)


def prepare(
    *,
    out: Path,
    source: Path | None = None,
    sample_users: float | None = None,
    history: str = "behaviors",
    table: Path | None = None,
    user: str | None = None,
    item: str | None = None,
    time: str | None = None,
    label: str | None = None,
    category: str | None = None,
    header: str | None = None,
    delimiter: str | None = None,
    encoding: str | None = None,
    time_format: str | None = None,
    time_unit: str | None = None,
    label_threshold: float | None = None,
    positive: str | None = None,
    accept_loss: bool = False,
    split: str = "time",
    seed: int = 42,
    memory_limit: str = "2GB",
    fresh: bool = False,
) -> None:
    """Ingest the Tianchi files of `source`, or the interactions log `table`, into a store.

    The arguments are those of `prepare_tianchi` and of `TableOptions`. `header` and `positive` are
    comma-separated lists, each a line of CSV; `memory_limit` is a size such as `2GB`. It continues
    an interrupted call unless `fresh`.

    Raises:
        UsageError: options contradict each other or are out of range, or one of the two functions
            raises it.
    """
    columns = {"user": user, "item": item, "time": time, "label": label, "category": category}
    text = {"header": _values("header", header), "delimiter": delimiter, "encoding": encoding}
    meaning: dict[str, Any] = {
        "time_format": time_format,
        "time_unit": time_unit,
        "label_threshold": label_threshold,
        "positive": _values("positive", positive),
    }
    said = {**columns, **text, **meaning}
    _check_which(source, table, said, sample_users)
    check_out_folder(out)
    limits: dict[str, Any] = {
        "memory_limit_bytes": _memory_limit_bytes(memory_limit),
        "threads": usable_cpus(),
    }
    began_s = _now_s()
    with StageDisplay() as display:
        if source is not None:
            from ctrkit.ctr.data.taobao import prepare_tianchi

            prepare_tianchi(
                source, out, sample_users=sample_users, history=history, split=split, seed=seed,
                accept_loss=accept_loss, fresh=fresh, watcher=display, **limits,
            )  # fmt: skip
        elif table is not None:
            from ctrkit.ctr.data.interactions import TableOptions, prepare_table

            options = TableOptions.of(
                columns, text, meaning, accept_loss=accept_loss, split=split, seed=seed
            )
            prepare_table(table, out, options, fresh=fresh, watcher=display, **limits)
    _print_made(out, began_s)


def info(store: Path, *, as_json: bool = False) -> None:
    """Print what a store holds.

    Args:
        store: the store's folder.
        as_json: one JSON document on stdout: `meta.json` with `path`, `size_bytes`,
            `first_time_s` and `last_time_s`.

    Raises:
        UsageError: no store, one of another schema version, or a damaged one.
    """
    opened = Store.open(store)
    if as_json:
        first_s, last_s = _time_range_s(opened)
        document = {"path": str(store), "size_bytes": _size_bytes(store)} | encode(opened.meta)
        document |= {"first_time_s": first_s, "last_time_s": last_s}
        text = json.dumps(finite(document), indent=2, ensure_ascii=True, allow_nan=False)
        sys.stdout.write(text + "\n")
    else:
        print_report([_summary(store, opened)])


def _now_s() -> float:
    return time.monotonic()


def _check_which(
    source: Path | None,
    table: Path | None,
    said: dict[str, Any],
    sample_users: float | None,
) -> None:
    """Check that the options fit `--source` or `--table`; `said` are those of `--table`."""
    if (source is None) == (table is None):
        raise UsageError("name either --source DIR (Tianchi's CSV files) or --table FILE")
    if table is not None:
        missing = next((column for column in _TABLE_COLUMNS if not said[column]), None)
        if missing:
            raise UsageError(f"--table needs --{missing} COLUMN: which column is the {missing}?")
        if sample_users is not None:
            raise UsageError("--sample-users belongs to --source, not to --table")
        return
    given = next((name for name, value in said.items() if value is not None), None)
    if given:
        raise UsageError(f"--{given.replace('_', '-')} belongs to --table, not to --source")


def _values(option: str, text: str | None) -> tuple[str, ...] | None:
    """The values of a comma-separated list, a line of CSV: quotes protect a comma."""
    if text is None:
        return None
    try:
        rows = list(csv.reader([text], skipinitialspace=True, strict=True))
    except csv.Error:
        rows = []
    if len(rows) != 1 or not any(value.strip() for value in rows[0]):
        raise UsageError(
            f"--{option} {format_value(text)}: write values with commas between them, such as"
            " 'one,two'; a value that has a comma stands in double quotes"
        )
    return tuple(value.strip() for value in rows[0])


def _memory_limit_bytes(text: str) -> int:
    try:
        limit_bytes = parse_bytes(text)
    except UsageError as error:
        raise UsageError(f"--memory-limit: {error}") from None
    if limit_bytes < _LEAST_MEMORY_BYTES:
        raise UsageError(
            f"--memory-limit {text}: must be at least {format_bytes(_LEAST_MEMORY_BYTES)}"
        )
    return limit_bytes


def _print_made(out: Path, began_s: float) -> None:
    took = format_duration(_now_s() - began_s)
    report = _summary(out, Store.open(out))
    closing = Section("Next", (Paragraph(f"made in {took}"), _command("probe --data", out)))
    print_report([Report(report.title, report.subtitle, (*report.sections, closing))])


def _print_files(out: Path, began_s: float) -> None:
    rows = tuple((file.name, format_bytes(file.stat().st_size)) for file in sorted(out.iterdir()))
    files = Table((Column("file", right=False), Column("size")), rows)
    made = Paragraph(f"made in {format_duration(_now_s() - began_s)}")
    following = Section("Next", (made, _command("data prepare --out STORE --source", out)))
    print_report([Report(f"Tianchi files in {out}", (), (Section("", (files,)), following))])


def _command(words: str, path: Path) -> Code:
    return Code((f"ctrkit {words} {shlex.quote(str(path))}",), "sh")


def _summary(path: Path, store: Store) -> Report:
    """The summary of a store, for the terminal."""
    meta = store.meta
    lengths = meta.history_length_stats
    first, last = (format_time(time_s) for time_s in _time_range_s(store))
    facts = Facts(
        (
            ("source", meta.source),
            ("created", meta.created),
            ("size", format_bytes(_size_bytes(path))),
            ("fingerprint", meta.fingerprint),
            ("times", f"{first} to {last}"),
            *(("read", note) for note in (meta.reading.notes if meta.reading else ())),
            ("split", f"{meta.split}: {meta.split_detail}"),
            ("history", f"{meta.history.get('kind', '-')}, {format_count(meta.behaviors)} events"),
            ("history item", meta.history.get("item", "-")),
            (
                "history length",
                f"mean {lengths['mean']:.1f}, median {lengths['p50']:.0f},"
                f" p90 {lengths['p90']:.0f}, max {lengths['max']:.0f};"
                f" {format_percent(lengths['empty_share'])} empty",
            ),
        )
    )
    sections = [
        Section("", (facts,)),
        Section("Rows", (_split_table(meta),)),
        Section("Vocabulary", (_vocabulary_table(meta),)),
        Section("Rows that could not be used as they are", _bad_rows_blocks(meta)),
    ]
    if meta.reading and meta.reading.warnings:
        warnings = Bullets(tuple(meta.reading.warnings), "warning")
        sections.insert(1, Section("Look at your data", (warnings,)))
    return Report(f"Store {path}: {meta.name}", (), tuple(sections))


def _time_range_s(store: Store) -> tuple[int, int]:
    """Unix seconds of the first and the last impression."""
    return int(store.time_s.min()), int(store.time_s.max())


def _split_table(meta: StoreMeta) -> Table:
    columns = [Column("split", right=False), Column("impressions"), Column("clicks per impression")]
    rows = [
        [split, format_count(meta.rows[split]), f"{meta.ctr[split] * 100:.3f} %"]
        for split in SPLITS
    ]
    if meta.oracle_auc:
        columns.append(Column("best possible AUC"))
        for row, split in zip(rows, SPLITS, strict=True):
            row.append(f"{meta.oracle_auc.get(split, float('nan')):.4f}")
    return Table(tuple(columns), tuple(tuple(row) for row in rows))


def _vocabulary_table(meta: StoreMeta) -> Table:
    rows = tuple((key, format_count(size)) for key, size in meta.vocabulary.items())
    return Table((Column("ids", right=False), Column("with padding and unknown")), rows)


def _bad_rows_blocks(meta: StoreMeta) -> tuple[Block, ...]:
    reading = meta.reading
    tone: Tone = "warning" if reading and _lost_share(reading) > _NOTABLE_LOSS else "plain"
    blocks: list[Block] = [] if reading is None else [_account_block(reading, tone)]
    if reading is not None and reading.files:
        blocks = [_files_table(reading.files)]
    if not meta.bad_rows:
        return (*blocks, Paragraph("none"))
    first = reading.first_bad if reading else {}
    columns = [Column("rows"), Column("why", right=False)]
    columns += [Column("first", right=False)] if first else []
    rows = tuple(
        (format_count(count), reason, first.get(reason, ""))[: len(columns)]
        for reason, count in meta.bad_rows.items()
    )
    return (*blocks, Table(tuple(columns), rows, (tone,) * len(rows)))


def _lost_share(reading: Reading) -> float:
    return 1 - reading.used / reading.rows


def _files_table(files: Mapping[str, FileAccount]) -> Table:
    """A table of what became of each file's rows; a file that lost many is a warning."""
    rows: list[tuple[str, ...]] = []
    tones: list[Tone] = []
    for name, each in files.items():
        lost = each.dropped / max(1, each.rows)
        counts = (each.rows, each.used, each.not_needed, each.dropped)
        rows.append((name, *map(format_count, counts), format_percent(lost)))
        tones.append("warning" if lost > _NOTABLE_LOSS else "plain")
    columns = (
        Column("file", right=False), Column("rows"), Column("used"), Column("not needed"),
        Column("dropped"), Column("share dropped", short="share"),
    )  # fmt: skip
    return Table(columns, tuple(rows), tuple(tones))


def _account_block(reading: Reading, tone: Tone) -> Paragraph:
    """A paragraph on what became of a table's rows."""
    dropped = reading.rows - reading.used
    text = (
        f"{format_count(reading.rows)} rows = {format_count(reading.used)} used"
        f" + {format_count(dropped)} dropped ({format_percent(_lost_share(reading))})"
    )
    if reading.blank_lines:
        text += f"; {format_count(reading.blank_lines)} blank lines between them"
    return Paragraph(text, tone)


def _size_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.iterdir() if file.is_file())
