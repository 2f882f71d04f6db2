from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrkit.core.plain_text import READABLE, in_ascii, shown_on
from ctrkit.report.blocks import Paragraph, Report, Section
from ctrkit.report.terminal import print_report


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("3.2 s ±4 %", "3.2 s +/-4 %"),
        ("4×2 → 8…", "4x2 -> 8..."),
        ("café.py", r"caf\xe9.py"),
        ("用户", r"\u7528\u6237"),
        ("\udcff", r"\udcff"),
        ("\u2068name\u2069", "name"),
        ("plain", "plain"),
    ],
)
def test_what_ascii_lacks_is_in_other_words(text: str, shown: str) -> None:
    assert in_ascii(text) == shown


@given(st.text(), st.sampled_from(["ascii", "latin-1", "cp1252", "utf-8"]))
def test_any_text_can_be_shown_anywhere(text: str, encoding: str) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors=READABLE, newline="")
    stream.write(text)
    stream.flush()
    shown_on(stream, text).encode(encoding)


def test_a_report_on_an_ascii_stream() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    print_report([Report("Probe of é", (), (Section("A — b", (Paragraph("±4 %, 用"),)),))], stream)
    stream.seek(0)
    assert r"Probe of \xe9" in (text := stream.read())
    assert r"+/-4 %, \u7528" in text
