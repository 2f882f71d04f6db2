"""Joins lines of text into records; a quoted value may span several lines.

A quote that is never closed belongs to its value and ends with its line; it swallows no other
lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pyarrow as pa

_LONGEST_RECORD_LINES = 1000
_CHUNK_ROWS = 1 << 16  # DuckDB reads so many per thread

#: flaws of a record before it is split
WHOLE, NO_UTF8, WITH_NUL = 0, 1, 2


@dataclass(frozen=True)
class Dialect:
    """How to split a record.

    Attributes:
        delimiter: one or more characters between two fields.
        quote: one character around a field.
        runs: true if any number of blanks and tabs delimits, as in padded columns.
    """

    delimiter: str = ","
    quote: str = '"'
    runs: bool = False

    def collapsed(self, record: str) -> str:
        """The record with a single delimiter for each run of blanks outside quotes."""
        if self.quote not in record:
            return self.delimiter.join(_compiled("[ \t]+").split(record.strip(" \t")))
        quoted = f"({self.quote}(?:[^{self.quote}]|{self.quote}{self.quote})*{self.quote})|[ \t]+"
        return _compiled(quoted).sub(lambda found: found[1] or self.delimiter, record.strip(" \t"))

    @property
    def pattern(self) -> str:
        """A regular expression, for Python and RE2, for a field and the delimiter after it.

        A quoted field ends at a quote before a delimiter. Without one, the quote is an ordinary
        character.
        """
        quote = self.quote
        return f"(?s)( *{quote}(?:[^{quote}]|{quote}{quote})*?{quote} *|.*?){self._escaped}"

    @property
    def escaping_pattern(self) -> str:
        """The same, if a backslash escapes a quote within quotes."""
        quote = self.quote
        return f"(?s)( *{quote}(?:[^{quote}\\\\]|\\\\.)*?{quote} *|.*?){self._escaped}"

    @property
    def _escaped(self) -> str:
        return re.escape(self.delimiter)

    def split(self, record: str) -> list[str]:
        """The fields of a record, with their quotes."""
        record = self.collapsed(record) if self.runs else record
        return _compiled(self.pattern).findall(record + self.delimiter)

    def values(self, record: str) -> list[str]:
        """The fields of a record, without quotes and blanks around them."""
        return [self._value(field.strip()) for field in self.split(record)]

    def _value(self, field: str) -> str:
        if not self.is_quoted(field):
            return field
        return field[1:-1].replace(self.quote * 2, self.quote).strip()

    def is_quoted(self, field: str) -> bool:
        """True for a field that begins and ends with a quote."""
        return len(field) > 1 and field[0] == self.quote == field[-1]

    def has_open_quote(self, record: str) -> bool:
        """True if a field begins with a quote that is never closed."""
        fields = (field.strip() for field in self.split(record))
        return any(f.startswith(self.quote) and not self.is_quoted(f) for f in fields)

    def is_whole(self, record: str, columns: int) -> bool:
        """True for a record of so many columns whose line ends all lie within quotes."""
        fields = self.split(record)
        return len(fields) == columns and all(
            self.is_quoted(field.strip()) for field in fields if "\n" in field
        )


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def joined_spans(
    lines: Sequence[str], odd: Iterable[int], dialect: Dialect, columns: int
) -> tuple[list[tuple[int, int]], int | None]:
    """Which lines together are one record.

    A line with an odd number of quotes is joined with the lines up to the next such line, if that
    gives the right number of columns. It is not joined if a line in between is a record by itself:
    then the quote was never closed.

    Args:
        lines: consecutive lines.
        odd: indices of lines with an odd number of quotes, ascending.
        dialect: how to split a record.
        columns: number of columns of each record.

    Returns:
        Spans (first, last) of two or more lines; and the line from which on the answer depends on
        following lines, None if there is none.
    """
    odd = list(odd)
    spans: list[tuple[int, int]] = []
    number = 0
    while number < len(odd):
        first = odd[number]
        last = odd[number + 1] if number + 1 < len(odd) else len(lines)
        between = lines[first + 1 : min(last, first + _LONGEST_RECORD_LINES)]
        ends_early = last - first > _LONGEST_RECORD_LINES
        if ends_early or any(dialect.is_whole(line, columns) for line in between):
            number += 1
        elif last == len(lines):
            return spans, first
        elif _is_one(lines[first : last + 1], dialect, columns):
            spans.append((first, last))
            number += 2
        else:
            number += 1
    return spans, None


def _is_one(lines: Sequence[str], dialect: Dialect, columns: int) -> bool:
    """True if the lines are one record, and not one record each with a surplus quote."""
    both_whole = all(dialect.is_whole(line, columns) for line in (lines[0], lines[-1]))
    return not both_whole and dialect.is_whole("\n".join(lines), columns)


def record_blocks(blocks: Iterable[bytes], dialect: Dialect, columns: int) -> Iterator[pa.Table]:
    """Records of UTF-8 lines, in large batches.

    Args:
        blocks: lines, each ending with a line feed.
        dialect: how to split a record.
        columns: number of columns of each record.

    Returns:
        Tables of `line` (int64, number of the record's first line, from 1), `text` (without line
        end), `flaw` (uint8: WHOLE, NO_UTF8 or WITH_NUL), and `open_quote` (bool: a value begins
        with a quote that is never closed).
    """
    line, waiting = 1, b""
    following = iter(blocks)
    block = next(following, None)
    while block is not None:
        after = next(following, None)
        text = waiting + with_line_feeds(block, dialect, columns)
        table, read_bytes = _records(text, line, dialect, columns, last=after is None)
        waiting = text[read_bytes:]
        line += text.count(b"\n", 0, read_bytes)
        yield table
        block = after


def with_line_feeds(block: bytes, dialect: Dialect, columns: int) -> bytes:
    """The block with a line feed for each line end that is a lone carriage return.

    A line that is whole as it is has carriage returns within a value, and stays unchanged.
    """
    if block.count(b"\r") == block.count(b"\r\n"):
        return block
    lines = block.split(b"\n")
    for number, line in enumerate(lines):
        inner = line.rstrip(b"\r")
        if b"\r" not in inner:
            continue
        text = inner.decode("utf-8", "replace")
        fields = dialect.split(text)
        whole = len(fields) >= columns and not any(fields[columns:])
        in_quotes = all(dialect.is_quoted(f.strip()) for f in fields if "\r" in f)
        if not whole or (dialect.quote in text and not in_quotes):
            lines[number] = inner.replace(b"\r", b"\n")
    return b"\n".join(lines)


def _records(
    block: bytes, line: int, dialect: Dialect, columns: int, *, last: bool
) -> tuple[pa.Table, int]:
    """The records of a block, and the number of bytes that they take."""
    import pyarrow as pa

    ends = np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n")) + 1
    text, flaw = _texts(block, ends)
    if dialect.runs:
        text = _collapsed(text, dialect)
    lines = np.arange(line, line + len(ends))
    count = len(ends)
    open_quote = np.zeros(count, bool)
    odd = _odd_lines(text, flaw, dialect)
    if len(odd):
        strings = text.to_pylist()
        spans, open_line = joined_spans(strings, odd, dialect, columns)
        if open_line is not None and not last and count - open_line <= _LONGEST_RECORD_LINES:
            count = open_line
        kept = np.ones(len(strings), bool)
        for begin, end in spans:
            strings[begin] = "\n".join(strings[begin : end + 1])
            kept[begin + 1 : end + 1] = False
        kept[count:] = False
        open_quote[odd] = [dialect.has_open_quote(strings[number]) for number in odd]
        text = pa.array(strings, pa.string()).filter(pa.array(kept))
        flaw, lines, open_quote = flaw[kept], lines[kept], open_quote[kept]
    table = pa.table({"line": lines, "text": text, "flaw": flaw, "open_quote": open_quote})
    chunked = pa.Table.from_batches(table.to_batches(_CHUNK_ROWS), table.schema)
    return chunked, int(ends[count - 1]) if count else 0


def _texts(block: bytes, ends: npt.NDArray[np.int64]) -> tuple[pa.Array, npt.NDArray[np.uint8]]:
    """The lines of a block without line ends, and the flaw of each."""
    import pyarrow as pa
    import pyarrow.compute as pc

    offsets = np.concatenate([[0], ends]).astype(np.int32)
    text = pa.StringArray.from_buffers(len(ends), pa.py_buffer(offsets), pa.py_buffer(block))
    flaw = np.zeros(len(ends), np.uint8)
    try:
        text.validate(full=True)
    except pa.ArrowInvalid:
        raw = [block[begin:end] for begin, end in pairwise(offsets)]
        flaw[[not _is_utf8(line) for line in raw]] = NO_UTF8
        text = pa.array([line.decode("utf-8", "backslashreplace") for line in raw], pa.string())
    if b"\x00" in block:
        flaw[pc.match_substring(text, "\x00").to_numpy(zero_copy_only=False)] = WITH_NUL
        text = pc.replace_substring(text, "\x00", "\\x00")
    return pc.ascii_rtrim(text, "\r\n"), flaw


def _collapsed(text: pa.Array, dialect: Dialect) -> pa.Array:
    """The lines with a single delimiter for each run of blanks."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pc.any(pc.match_substring(text, dialect.quote)).as_py():
        return pa.array([dialect.collapsed(line) for line in text.to_pylist()], pa.string())
    trimmed = pc.utf8_trim(text, " \t")
    return pc.replace_substring_regex(trimmed, "[ \t]+", dialect.delimiter)


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _odd_lines(
    text: pa.Array, flaw: npt.NDArray[np.uint8], dialect: Dialect
) -> npt.NDArray[np.int64]:
    """Indices of the lines with an odd number of quotes."""
    import pyarrow.compute as pc

    quotes = pc.count_substring(text, dialect.quote).to_numpy()
    return np.flatnonzero((quotes % 2 == 1) & (flaw == WHOLE))
