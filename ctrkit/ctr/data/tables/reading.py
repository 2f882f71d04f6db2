"""Reads columns into DuckDB: each cell as text, each row with its place in the file."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ctrkit.core.errors import UsageError
from ctrkit.core.units import format_value
from ctrkit.ctr.data.tables.columns import check_unique, find_columns, missing_column
from ctrkit.ctr.data.tables.layout import Layout, find_layout, spelled_delimiter
from ctrkit.ctr.data.tables.parquet import partitions, read_types, text_sql
from ctrkit.ctr.data.tables.table_files import TableFiles, find_files, read_blocks
from ctrkit.ctr.data.tables.text import TextForm, find_form, line_blocks
from ctrkit.ctr.data.tables.text_records import NO_UTF8, WITH_NUL, record_blocks
from ctrkit.ctr.data.workspace import Workspace, literal

if TYPE_CHECKING:
    import pyarrow as pa

FIELDS = ("user", "item", "category", "time", "label")
#: why a line has no cells, besides the flaws of `text_records`
BLANK, TOO_FEW, TOO_MANY = 3, 4, 5

_HEAD_BYTES = 1 << 20
_HEAD_LINES = 50
_BLOCK_BYTES = 16 << 20
_SAMPLE_LENGTH = 200
_ODD_BLANKS = "\t\r\n\u00a0"


@dataclass(frozen=True, kw_only=True)
class TextOptions:
    """The user's options for a text table; None for what is to be detected."""

    header: tuple[str, ...] | None = None
    delimiter: str | None = None
    encoding: str | None = None

    def check(self) -> None:
        """Check what can be checked without the file.

        Raises:
            UsageError: the delimiter cannot be one.
        """
        if self.delimiter is None:
            return
        shown = f"--delimiter {format_value(self.delimiter)}"
        if not self.delimiter:
            raise UsageError(
                f"{shown}: is empty; say what stands between two fields, such as ',' or tab, or"
                " leave the option out"
            )
        if set(self.delimiter) & set("\r\n\"'"):
            raise UsageError(f"{shown}: quotes and line ends cannot stand between two fields")


@dataclass(frozen=True)
class TextPart:
    """A text file, and how to read it."""

    file: Path
    form: TextForm
    layout: Layout


@dataclass(frozen=True)
class ParquetPart:
    """A Parquet file: its number of columns, and SQL and type of each field."""

    file: Path
    columns: int
    sql: Mapping[str, str]
    kinds: Mapping[str, pa.DataType]


@dataclass(frozen=True)
class Source:
    """A readable table.

    Attributes:
        files: the table's files.
        parts: one per file.
        asked: the column name per field.
    """

    files: TableFiles
    parts: tuple[TextPart | ParquetPart, ...]
    asked: Mapping[str, str]

    @property
    def flaws(self) -> dict[int, str]:
        """Reasons why a line has no cells, in words."""
        named = {len(part.layout.names) for part in self.parts if isinstance(part, TextPart)}
        columns = f"the {named.pop()} columns" if len(named) == 1 else "the columns"
        return {
            NO_UTF8: "line is not UTF-8",
            WITH_NUL: "line has a NUL byte",
            TOO_FEW: f"line has fewer than {columns} of the header",
            TOO_MANY: f"line has more than {columns} of the header",
        }

    @property
    def notes(self) -> list[str]:
        """Notes for the user on how the files are read."""
        notes = dict.fromkeys(self.files.left_out)
        for part in self.parts:
            if isinstance(part, TextPart):
                if part.form.note:
                    notes[f"{part.file.name}: {part.form.note}"] = None
                if part.layout.dialect.runs:
                    notes[f"{part.file.name}: runs of blanks delimit its columns"] = None
                if part.layout.before > 1:
                    above = part.layout.before - 1
                    notes[f"{part.file.name}: line {above + 1} is the header"] = None
        return list(notes)


def open_source(path: Path, asked: Mapping[str, str], options: TextOptions) -> Source:
    """Find a table's files and how to read each; reads only their beginnings.

    Raises:
        UsageError: a file cannot be read, a column is missing or occurs twice, or its type cannot
            be that of an id, a time or a label.
    """
    files = find_files(path)
    if files.parquet:
        given = next((name for name, value in vars(options).items() if value is not None), None)
        if given:
            raise UsageError(f"--{given} is for text files, but {path} is Parquet")
        return Source(files, _parts(files, lambda file: _parquet_part(file, asked)), asked)
    return Source(files, _parts(files, lambda file: _text_part(file, asked, options)), asked)


def _parts(
    files: TableFiles, part: Callable[[Path], TextPart | ParquetPart]
) -> tuple[TextPart | ParquetPart, ...]:
    """How to read each file.

    Raises:
        UsageError: why the first unreadable file cannot be read, and how many cannot.
    """
    parts, errors = [], []
    for file in files.files:
        try:
            parts.append(part(file))
        except UsageError as error:
            errors.append(error)
    if errors:
        others = f" ({len(errors)} of {len(files.files)} files cannot be read like that)"
        raise UsageError(f"{errors[0]}{others * (len(errors) > 1)}") from None
    return tuple(parts)


def _text_part(file: Path, asked: Mapping[str, str], options: TextOptions) -> TextPart:
    head = next(read_blocks(file, _HEAD_BYTES), b"")
    try:
        form = find_form(head, options.encoding, spelled_delimiter(options.delimiter or ""))
    except UsageError as error:
        raise UsageError(f"{file}: {error}") from None
    text = head[len(form.mark) :].decode(form.encoding, "replace")
    lines = re.split("\r*\n|\r", text, maxsplit=_HEAD_LINES)
    if len(lines) > 1:
        lines.pop()  # the last line may be incomplete
    return TextPart(file, form, _layout(file, form, lines, asked, options))


def _layout(
    file: Path, form: TextForm, lines: list[str], asked: Mapping[str, str], options: TextOptions
) -> Layout:
    try:
        return find_layout(file, lines, asked, header=options.header, delimiter=options.delimiter)
    except UsageError as error:
        if form.note:
            raise UsageError(f"{error}; the file is {form.note}") from None
        raise


def _parquet_part(file: Path, asked: Mapping[str, str]) -> ParquetPart:
    if not str(file).isprintable() and "\ufffd" in os.fsencode(file).decode("utf-8", "replace"):
        raise UsageError(f"{file}: its name is not UTF-8, which DuckDB cannot open; rename it")
    types = read_types(file)
    constant = {key: value for key, value in partitions(file).items() if key not in dict(types)}
    names = [name for name, _ in types] + list(constant)
    found = find_columns(asked, names)
    if found is None:
        raise missing_column(file, asked, names)
    check_unique(file, found, names)
    sql, kinds = {}, {}
    for field, place in found.items():
        if place < len(types):
            sql[field] = text_sql(file, field, types[place], f"c{place}")
            kinds[field] = types[place][1]
        else:
            sql[field] = literal(constant[names[place]])
    return ParquetPart(file, len(types), sql, kinds)


def read_cells(space: Workspace, source: Source) -> None:
    """Make the table `cells`: file, place, flaw, line, and `user_text`, `item_text`, ...

    `place` is the line number in a text file (the first of a record), or the row in a Parquet file.
    A line with a flaw has no fields, and `line` is its text. `open_quote` is as in `record_blocks`.
    """
    texts = ", ".join(f"{field}_text VARCHAR" for field in FIELDS)
    space.run(
        f"CREATE TABLE cells (file INTEGER, place BIGINT, {texts},"
        " flaw UTINYINT, open_quote BOOLEAN, line VARCHAR)"
    )
    # it is soon dropped, so compression is not worth it
    space.run("SET force_compression = 'uncompressed'")
    total = sum(part.file.stat().st_size for part in source.parts)
    read = rows = 0
    for number, part in enumerate(source.parts):
        if isinstance(part, ParquetPart):
            space.run(f"INSERT INTO cells {_parquet_sql(part, number)}")
            read += part.file.stat().st_size
            rows = int(space.value("SELECT count(*) FROM cells"))
            space.advance(rows, round(rows * total / max(1, read)))
            continue
        for records in _ahead(_records(part)):
            space.insert(f"INSERT INTO cells {_text_sql(part.layout, number)}", records)
            read += records.nbytes
            rows += records.num_rows
            space.advance(rows, round(rows * max(1.0, total / max(1, read))))
    space.advance(rows, rows)


def _records(part: TextPart) -> Iterator[pa.Table]:
    """The records after the header, in large batches."""
    import pyarrow.compute as pc

    blocks = line_blocks(part.file, part.form, read_blocks(part.file, _BLOCK_BYTES))
    before = part.layout.before
    for records in record_blocks(blocks, part.layout.dialect, len(part.layout.names)):
        first_line = records.column("line")[0].as_py() if records.num_rows else before
        if first_line <= before:
            records = records.filter(pc.greater(records.column("line"), before))
        yield records


def _ahead(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same tables, each made while the previous one is consumed."""
    with ThreadPoolExecutor(1, "lines") as pool:
        following = pool.submit(next, tables, None)
        while (table := following.result()) is not None:
            following = pool.submit(next, tables, None)
            yield table


def _text_sql(layout: Layout, number: int) -> str:
    """SELECT of the cells of records, the table `block`."""
    dialect, count = layout.dialect, len(layout.names)
    delimiter, quote = literal(dialect.delimiter), literal(dialect.quote)

    def fields(pattern: str) -> str:
        return f"regexp_extract_all(text || {delimiter}, {literal(pattern)}, 1)"

    # most lines have nothing to look at but delimiters and blanks
    marks = dialect.quote + _ODD_BLANKS.replace(dialect.delimiter, "")
    special = " OR ".join(f"contains(text, {literal(mark)})" for mark in marks)
    split = (
        f"SELECT *, CASE WHEN flaw <> 0 THEN NULL WHEN contains(text, {quote})"
        f" THEN {fields(dialect.pattern)} ELSE string_split(text, {delimiter}) END AS f,"
        f" ({special}) AS special FROM block"
    )
    escaped = (
        f"special AND len(f) <> {count} AND contains(text, {literal(chr(92) + dialect.quote)})"
    )
    again = (
        f"SELECT * REPLACE (CASE WHEN {escaped} THEN {fields(dialect.escaping_pattern)} ELSE f END"
        f" AS f) FROM ({split})"
    )
    # a delimiter at the end of each line adds empty fields without a column
    surplus = f"{_trim(f'array_to_string(f[{count + 1}:], {chr(39) * 2})')} <> ''"
    flaw = (
        f"CASE WHEN flaw <> 0 THEN flaw WHEN len(f) = {count} THEN 0"
        f" WHEN {_trim('text')} = '' THEN {BLANK} WHEN len(f) < {count} THEN {TOO_FEW}"
        f" WHEN {surplus} THEN {TOO_MANY} ELSE 0 END::UTINYINT"
    )
    cells = ", ".join(
        _value_sql(f"f[{layout.columns[field] + 1}]", dialect.quote)
        if field in layout.columns
        else "NULL"
        for field in FIELDS
    )
    return (
        f"SELECT {number}, line, {cells}, flaw, open_quote,"
        f" CASE WHEN flaw <> 0 THEN left(text, {_SAMPLE_LENGTH}) END"
        f" FROM (SELECT * REPLACE ({flaw} AS flaw) FROM ({again}))"
    )


def _trim(text: str) -> str:
    """SQL for a text without blanks of any kind around it."""
    return f"trim({text}, {literal(' ' + _ODD_BLANKS)})"


def _value_sql(field: str, quote: str) -> str:
    """SQL for a field's text without quotes and blanks around it, if its line has no flaw."""
    text = _trim(field)
    mark, twice, escaped = literal(quote), literal(quote * 2), literal("\\" + quote)
    quoted = f"starts_with({text}, {mark}) AND ends_with({text}, {mark}) AND length({text}) > 1"
    inner = f"replace(replace({text}[2:-2], {twice}, {mark}), {escaped}, {mark})"
    return (
        f"CASE WHEN flaw <> 0 THEN NULL WHEN NOT special THEN trim({field})"
        f" WHEN {quoted} THEN {_trim(inner)} ELSE {text} END"
    )


def _parquet_sql(part: ParquetPart, number: int) -> str:
    """SELECT of the cells of a Parquet file."""
    names = ", ".join([*(f"c{place}" for place in range(part.columns)), "place"])
    cells = ", ".join(part.sql.get(field, "NULL") for field in FIELDS)
    options = "file_row_number = true, hive_partitioning = false"
    return (
        f"SELECT {number}, place + 1, {cells}, 0, false, NULL"
        f" FROM read_parquet({literal(glob.escape(str(part.file)))}, {options}) AS t({names})"
    )
