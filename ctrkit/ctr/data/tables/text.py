"""Finds the encoding of a text file, and reads it as lines of UTF-8."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ctrkit.core.errors import UsageError
from ctrkit.core.units import format_bytes, format_percent, format_value, printable

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_UTF8 = "utf-8"
_LATIN1 = "latin-1"
#: least share of zeros among every other byte of mostly Western text in UTF-16
_NUL_SHARE = 0.3
_NEVER_IN_TEXT: Final = frozenset(map(chr, range(2, 32))) - set(
    "\t\n\r\f\v\x1a\x1b\x1c\x1d\x1e\x1f"
)
_BINARY_SHARE = 0.02
_LOOKED_AT = 1 << 16  # characters
_LONGEST_RECORD_BYTES = 24 << 20  # what is longer consists of several lines
_LONGEST_LINE_BYTES = 64 << 20


@dataclass(frozen=True)
class TextForm:
    """How the bytes of a file become lines.

    Attributes:
        encoding: a Python codec.
        mark: the byte-order mark at the beginning, which is no text.
        line_end: a line feed (also after a carriage return), or a carriage return if the file
            begins without a line feed; `text_records` finds carriage returns among line feeds.
        note: a note for the user, or "".
    """

    encoding: str = _UTF8
    mark: bytes = b""
    line_end: str = "\n"
    note: str = ""


def find_form(head: bytes, named: str | None = None, delimiter: str = "") -> TextForm:
    """How to read a text file that begins with `head`.

    UTF-8, UTF-16 and UTF-32 are recognised. Other bytes are read as Latin-1, where every byte is a
    character: ids stay distinct, and the note says so.

    Args:
        head: the first bytes, about a MiB.
        named: the user's encoding.
        delimiter: the user's delimiter, which may be a control character.

    Raises:
        UsageError: Python does not know the encoding, or the bytes are no text.
    """
    mark, encoding = next(
        ((mark, name) for mark, name in _MARKS if head.startswith(mark)), (b"", "")
    )
    note = ""
    if named is not None:
        said = _known(named)
        # the mark says more than `utf-16`, which allows both byte orders
        encoding = encoding if encoding.startswith(said.removesuffix("-sig")) else said
    elif not encoding:
        encoding = _guess(head)
        if encoding == _LATIN1:
            note = f"not UTF-8 ({_odd_bytes(head)}), so read as Latin-1; --encoding names another"
    one = mark
    while one and head.startswith(one, len(mark)):  # some programs write it twice
        mark += one
    text = head[len(mark) :].decode(encoding, "ignore")
    begin = text[:_LOOKED_AT]
    never = _NEVER_IN_TEXT - set(delimiter)
    odd = [place for place, char in enumerate(begin) if char in never]
    if len(odd) > _BINARY_SHARE * len(begin):
        kinds = {begin[place] for place in odd}
        way_out = "or name its --encoding" if named is None else "or name another --encoding"
        if len(kinds) == 1:  # then it is probably a delimiter
            way_out = f"or say --delimiter '{printable(kinds.pop())}' if that separates its fields"
        around = begin[max(0, odd[0] - 12) : odd[0] + 12]
        raise UsageError(
            f"is not text: {format_percent(len(odd) / len(begin))} of its first characters are"
            f" control characters, first after {odd[0]:,} characters: {format_value(around)};"
            f" write it as CSV or Parquet, {way_out}"
        )
    line_end = "\r" if "\r" in text and "\n" not in text else "\n"
    return TextForm(encoding, mark, line_end, note)


def _known(named: str) -> str:
    try:
        name = codecs.lookup(named).name
        "a".encode(name)  # Python calls `base64` and `rot13` codecs as well
    except (LookupError, TypeError, ValueError):
        raise UsageError(
            f"--encoding {named}: unknown; for example utf-8, latin-1, utf-16 or gbk"
        ) from None
    return name


def _guess(head: bytes) -> str:
    pairs = max(1, len(head) // 2)
    if head[1::2].count(0) > _NUL_SHARE * pairs and not head[::2].count(0):
        return "utf-16-le"
    if head[::2].count(0) > _NUL_SHARE * pairs and not head[1::2].count(0):
        return "utf-16-be"
    # incremental, since the head may end within a character
    text = codecs.getincrementaldecoder(_UTF8)("replace").decode(head)
    wrong = text.count("\ufffd")
    right = 0 if text.isascii() else sum(char > "\x7f" for char in text) - wrong
    return _LATIN1 if wrong > right else _UTF8


def _odd_bytes(head: bytes) -> str:
    try:
        head.decode(_UTF8)
    except UnicodeDecodeError as error:
        around = head[max(0, error.start - 8) : error.end + 8].decode(_LATIN1)
        return format_value(around)
    return "-"


def line_blocks(file: Path, form: TextForm, blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of a file as UTF-8, in blocks that each end with a line feed.

    In a file of UTF-8, invalid bytes stay as they are.

    Raises:
        UsageError: a byte is invalid in another encoding, or a line is too long to be one.
    """
    rest = b""
    for block in _as_utf8(file, form, blocks):
        text = rest + block
        cut = text.rfind(b"\n") + 1
        if cut:
            yield text[:cut]
        rest = text[cut:]
        if len(rest) > _LONGEST_RECORD_BYTES:
            # this is after a line feed; from here on only carriage returns end lines
            cut = rest.rfind(b"\r", 0, -1) + 1
            if cut:
                yield rest[: cut - 1] + b"\n"
            rest = rest[cut:]
        if len(rest) > _LONGEST_LINE_BYTES:
            raise UsageError(
                f"{file}: a line is longer than {format_bytes(_LONGEST_LINE_BYTES)}: is this text?"
            )
    if rest:
        yield rest + b"\n"


def _as_utf8(file: Path, form: TextForm, blocks: Iterable[bytes]) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(form.encoding)("strict")
    at_start = True
    try:
        for block in blocks:
            text = block.removeprefix(form.mark) if at_start else block
            at_start = False
            if form.encoding != _UTF8:
                text = decoder.decode(text).encode()
            yield text.replace(b"\r", b"\n") if form.line_end == "\r" else text
        if form.encoding != _UTF8:
            decoder.decode(b"", final=True)
    except UnicodeError as error:
        raise UsageError(
            f"{file}: is not {form.encoding}: {error}; --encoding names another"
        ) from None
