"""Rewrites text for a terminal or log that can show ASCII only."""

from __future__ import annotations

import codecs
import sys
from typing import TextIO

#: the name of a codec error handler, for `errors=`
READABLE = "ctrkit-readable"
_WORDS = {
    "\u00b1": "+/-", "\u00d7": "x", "\u00b7": "-", "\u00b5": "u", "\u03bc": "u",
    "\u2026": "...", "\u2013": "-", "\u2014": "-", "\u2212": "-", "\u2010": "-", "\u2011": "-",
    "\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2022": "-",
    "\u2190": "<-", "\u2192": "->", "\u2191": "^", "\u2193": "v",
    "\u2264": "<=", "\u2265": ">=", "\u2248": "~", "\u2260": "!=",
    "\u2713": "ok", "\u2714": "ok", "\u2715": "x", "\u2717": "x",
    "\u2588": "#", "\u2501": "-", "\u2500": "-", "\u2578": "-", "\u257a": "-", "\u2502": "|",
    "\u00a0": " ", "\u202f": " ", "\u2009": " ",
    "\u2066": "", "\u2067": "", "\u2068": "", "\u2069": "", "\u200b": "",
}  # fmt: skip


def in_ascii(text: str) -> str:
    r"""The text with other words for the signs that we use, and a code for every other character.

    Letters become their code, so that a name can still be told from another: `caf\xe9.py`.
    """
    return "".join(char if char.isascii() else _plain(char) for char in text)


def _plain(char: str) -> str:
    word = _WORDS.get(char)
    return char.encode("ascii", "backslashreplace").decode() if word is None else word


def _handle(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return in_ascii(error.object[error.start : error.end]), error.end


codecs.register_error(READABLE, _handle)


def make_streams_readable() -> None:
    """Let stdout and stderr accept any text in any encoding, without raising."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors=READABLE)


def shown_on(stream: TextIO, text: str) -> str:
    """The text as this stream can show it."""
    encoding = stream.encoding or "utf-8"
    return text.encode(encoding, READABLE).decode(encoding)
