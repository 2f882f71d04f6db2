"""Finds the layout of a text table: its delimiter, its quote, and its header line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ctrkit.core.errors import UsageError
from ctrkit.core.units import format_value, printable
from ctrkit.ctr.data.tables.columns import (
    check_unique,
    find_columns,
    missing_column,
    shown_names,
)
from ctrkit.ctr.data.tables.text_records import Dialect

DELIMITERS = (",", "\t", ";", "|", "::", "\x01", " ")
_SPELLED = {"\\t": "\t", "tab": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " "}
_SPELLED |= {"\\001": "\x01"}
_BLANKS = (" ", "\t")
_LONGEST_PREAMBLE = 20
_MOST_LONGER_SHARE = 0.9
_COMMENTS = ("#", "%", "//", "--")
_DATA = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?|\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}.*")


@dataclass(frozen=True)
class Layout:
    """The layout of a text table.

    Attributes:
        dialect: how a line is split.
        names: all column names, in order.
        columns: position of each requested column, by field.
        before: number of lines before the first row: the header and anything above it.
    """

    dialect: Dialect
    names: tuple[str, ...]
    columns: Mapping[str, int]
    before: int


def spelled_delimiter(text: str) -> str:
    r"""The delimiter that the user means, who may spell it `tab`, `\t` or `\x1f`."""
    code = re.fullmatch(r"\\x([0-9a-fA-F]{2})", text)
    return chr(int(code[1], 16)) if code else _SPELLED.get(text, text)


def find_layout(
    path: Path,
    lines: Sequence[str],
    asked: Mapping[str, str],
    *,
    header: Sequence[str] | None = None,
    delimiter: str | None = None,
) -> Layout:
    """Find the layout from the first lines of a file.

    Args:
        path: the file, for messages.
        lines: its first lines; the last may be incomplete.
        asked: the column name per field (`user`, `item`, ...).
        header: the column names, if the file has no header line.
        delimiter: the user's delimiter; None to detect it.

    Raises:
        UsageError: a column is missing or occurs twice, or the file has no header.
    """
    delimiters = DELIMITERS if delimiter is None else (spelled_delimiter(delimiter),)
    if not any(line.strip() for line in lines):
        raise UsageError(f"{path}: is empty; its first line must name the columns")
    if header is not None:
        layout: Layout | None = _named_layout(path, lines, asked, header, delimiters)
    else:
        layout = _header_layout(lines, asked, delimiters)
        if layout is not None:
            _check_width(path, layout, lines)
    if layout is None:
        raise _no_header(path, lines, asked, delimiters)
    check_unique(path, layout.columns, layout.names)
    return layout


def _named_layout(
    path: Path,
    lines: Sequence[str],
    asked: Mapping[str, str],
    header: Sequence[str],
    delimiters: Sequence[str],
) -> Layout:
    """The layout if the user names the columns: the delimiter that gives as many."""
    columns = find_columns(asked, header)
    if columns is None:
        raise missing_column(Path("--header"), asked, header)
    filled = [line for line in lines if line.strip()]
    fitting = {
        dialect: sum(len(dialect.split(line)) == len(header) for line in filled)
        for dialect in _dialects(delimiters, filled[0])
    }
    dialect = max(fitting, key=lambda each: fitting[each])
    if not fitting[dialect]:
        best = _likely(filled, delimiters)
        fields = len(best.split(filled[0]))
        raise UsageError(
            f"{path}: --header names {len(header)} columns, but the first line has {fields},"
            f" delimited by {_delimited(best)}: {format_value(filled[0], 60)};"
            " name them all, or say --delimiter"
        )
    return Layout(dialect, tuple(header), columns, 0)


def _header_layout(
    lines: Sequence[str], asked: Mapping[str, str], delimiters: Sequence[str]
) -> Layout | None:
    """The layout by the first line that names all requested columns; None if none does."""
    for number, line in enumerate(lines[:_LONGEST_PREAMBLE]):
        for dialect in _dialects(delimiters, line):
            names = dialect.values(line)
            columns = find_columns(asked, names)
            if columns is None and line.startswith("#"):  # `#user,item` is a header
                names = dialect.values(line.lstrip("# "))
                columns = find_columns(asked, names)
            if columns is not None and not _are_data(asked.values(), names):
                layout = Layout(dialect, tuple(names), columns, number + 1)
                return _padded(layout, line, lines, asked) or layout
    return None


def _padded(
    layout: Layout, header: str, lines: Sequence[str], asked: Mapping[str, str]
) -> Layout | None:
    """The layout with runs of blanks as delimiters, if more lines then have the right width."""
    if layout.dialect.delimiter not in _BLANKS or layout.dialect.runs:
        return None
    dialect = replace(layout.dialect, runs=True)
    names = dialect.values(header)
    columns = find_columns(asked, names)
    rows = [line for line in lines[layout.before :] if line.strip()]
    plain = sum(len(layout.dialect.split(row)) == len(layout.names) for row in rows)
    if columns is None or sum(len(dialect.split(row)) == len(names) for row in rows) <= plain:
        return None
    return Layout(dialect, tuple(names), columns, layout.before)


def _check_width(path: Path, layout: Layout, lines: Sequence[str]) -> None:
    """Check that not all lines have more fields than the header.

    Raises:
        UsageError: they have; R, for example, writes row names without a column name.
    """
    escaped = "\\" + layout.dialect.quote  # lines with escaped quotes are split in another way, too
    kept = [line for line in lines[layout.before :] if line.strip() and escaped not in line]
    rows = [layout.dialect.values(line) for line in kept]
    named = len(layout.names)
    longer = [row for row in rows if any(row[named:])]
    if len(longer) > _MOST_LONGER_SHARE * len(rows):
        fields = len(longer[0])
        raise UsageError(
            f"{path}: its header names {named} columns, but the lines have {fields} fields, such as"
            f" {format_value(layout.dialect.delimiter.join(longer[0]), 60)};"
            f" {_way_out(layout.dialect, fields)} (the line that names them is dropped then)"
        )


def _quote(line: str) -> str:
    """The quote character of a file with this line: single if its first value has single quotes."""
    return "'" if re.match(r"\s*'[^']*'\s*\W", line) else '"'


def _are_data(asked: Iterable[str], names: Sequence[str]) -> bool:
    """True if matching names are data by chance: all numbers, unlike column names."""
    named = [name for name in names if name]
    counted = [[str(number + first) for number in range(len(named))] for first in (0, 1)]
    return all(map(_is_data, asked)) and named not in counted


def _is_data(field: str) -> bool:
    return _DATA.fullmatch(field) is not None


def _is_like(first: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """True if a first line looks like the other lines: a value recurs, or all codes are alike.

    A code is a text with digits, such as `u12`. `u12` and `u7` are alike, `u12` and `user1` are
    not.
    """
    for place, value in enumerate(first):
        others = [row[place] for row in rows if len(row) > place]
        if value and value in others:
            return True
        made = {re.sub(r"\d+", "0", other) for other in others}
        if len(others) > 1 and "0" in str(made) and made == {re.sub(r"\d+", "0", value)}:
            return True
    return False


def _likely(lines: Sequence[str], delimiters: Sequence[str]) -> Dialect:
    """The dialect that splits most lines into the same number of fields, at least two."""

    def fit(dialect: Dialect) -> tuple[int, int]:
        counts = [len(dialect.split(line)) for line in lines]
        fields = max(set(counts), key=counts.count)
        return (counts.count(fields), fields) if fields > 1 else (0, 0)

    return max(_dialects(delimiters, lines[0]), key=fit)


def _dialects(delimiters: Sequence[str], line: str) -> list[Dialect]:
    """A dialect per delimiter for files with such a line; also one for runs of blanks."""
    plain = [Dialect(delimiter, _quote(line)) for delimiter in delimiters]
    blank = [each for each in plain if each.delimiter in _BLANKS][-1:]
    return plain + [replace(each, runs=True) for each in blank]


def _no_header(
    path: Path, lines: Sequence[str], asked: Mapping[str, str], delimiters: Sequence[str]
) -> UsageError:
    """Why no line names the columns, and what to do."""
    filled = [line for line in lines if line.strip()]
    dialect = _likely(filled[1:] or filled, delimiters)
    first = filled[0]
    names = dialect.values(first)
    shown = format_value(first, 60)
    fields = len(dialect.values(filled[-1]))
    if first.startswith(_COMMENTS):
        return UsageError(
            f"{path}: its first line is a comment, {shown}, and no line after it names"
            f" {shown_names(list(asked.values()))}; {_way_out(dialect, fields)}"
        )
    if len(names) == 1:
        return UsageError(
            f"{path}: its first line is a single column, {shown}; if something else than"
            f" comma, tab, semicolon, |, :: or blank delimits it, say --delimiter; columns without"
            " a line of names are named by --header NAME,NAME,..."
        )
    if any(map(_is_data, names)) or _is_like(names, [dialect.values(line) for line in filled[1:]]):
        delimited = f", delimited by {_delimited(dialect)}"
        return UsageError(
            f"{path}: has no header, its first line is data: {shown}{delimited};"
            f" {_way_out(dialect, len(names))}"
        )
    return missing_column(path, asked, names)


def _way_out(dialect: Dialect, fields: int) -> str:
    names = ",".join(f"NAME{number + 1}" for number in range(min(fields, 8)))
    more = ",..." if fields > 8 else ""
    return f"name its {fields} columns in their order: --header {names}{more}" + (
        ""
        if dialect.delimiter == "," or dialect.runs
        else f" --delimiter '{_spelled(dialect.delimiter)}'"
    )


def _delimited(dialect: Dialect) -> str:
    return "runs of blanks" if dialect.runs else format_value(dialect.delimiter)


def _spelled(delimiter: str) -> str:
    return "\\t" if delimiter == "\t" else printable(delimiter)
