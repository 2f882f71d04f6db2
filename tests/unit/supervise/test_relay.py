"""What is kept of a script's output, and when our own line may come in between."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctrkit.supervise.relay import _CUT_SEQUENCE, DROPPED, OutputCopy


def test_a_copy_never_grows_too_large(tmp_path: Path) -> None:
    copy = OutputCopy(tmp_path / "out", limit_bytes=100)
    copy.write(b"a" * 60)
    copy.write(b"b" * 39)
    assert (tmp_path / "out").read_bytes() == b"a" * 60 + b"b" * 39
    copy.write(b"c" * 20)
    copy.close()
    assert (tmp_path / "out").read_bytes() == DROPPED + b"c" * 20


@pytest.mark.parametrize("end", [b"\x1b", b"\x1b[", b"\x1b[3", b"\x1b[38;5;", b"\x1b]2;ti"])
def test_no_line_of_ours_cuts_an_escape_sequence(end: bytes) -> None:
    assert _CUT_SEQUENCE.search(b"50%" + end)


@pytest.mark.parametrize("end", [b"", b"50%", b"\x1b[38;5;1m", b"\x1b[K", b"\x1b]2;title\x07"])
def test_after_a_whole_one_it_may_come(end: bytes) -> None:
    assert not _CUT_SEQUENCE.search(b"50%" + end)
