"""Durations, sizes and counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrkit.core.errors import UsageError
from ctrkit.core.units import (
    format_bytes,
    format_count,
    format_duration,
    format_percent,
    format_time,
    format_value,
    parse_bytes,
    parse_duration_s,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("120s", 120), ("10m", 600), ("1.5h", 5400), (" 2 d ", 172800), ("50ms", 0.05)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "x", "-3s", "0", "3 weeks", "1:30", "nan"])
def test_no_duration(text: str) -> None:
    with pytest.raises(UsageError, match="no duration"):
        parse_duration_s(text)


@pytest.mark.parametrize(("text", "size"), [("2GB", 2 * 10**9), ("512MiB", 2**29), ("7", 7)])
def test_sizes(text: str, size: int) -> None:
    assert parse_bytes(text) == size


def test_no_size() -> None:
    with pytest.raises(UsageError, match="no size"):
        parse_bytes("lots")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"), (float("nan"), "-"), (0.0471, "47.1 ms"), (3.21, "3.21 s"),
        (59.96, "1 min 00 s"), (250, "4 min 10 s"), (3599.9, "1 h 00 min"),
        (47100, "13 h 05 min"), (183600, "2 d 3 h"), (-5, "-5 s"),
    ],
)  # fmt: skip
def test_duration_text(seconds: float | None, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.floats(min_value=1, max_value=1e7))
def test_duration_text_is_true_to_two_percent(seconds: float) -> None:
    units = {"s": 1, "min": 60, "h": 3600, "d": 86400}
    words = format_duration(seconds).split()
    said_s = sum(float(n) * units[unit] for n, unit in zip(words[::2], words[1::2], strict=True))
    assert said_s == pytest.approx(seconds, rel=0.021)


def test_bytes_and_counts() -> None:
    assert format_bytes(1.23e9) == "1.23 GB"
    assert format_bytes(512) == "512 B"
    assert format_bytes(None) == "-"
    assert format_count(1277527) == "1,277,527"


@pytest.mark.parametrize(
    ("share", "text", "aligned"),
    [(0.0, "0 %", "0.0 %"), (0.03, "3 %", "3.0 %"), (0.042, "4.2 %", "4.2 %"),
     (0.0994, "9.9 %", "9.9 %"), (0.0996, "10 %", "10 %"), (0.754, "75 %", "75 %")],
)  # fmt: skip
def test_percentages(share: float, text: str, aligned: str) -> None:
    assert (format_percent(share), format_percent(share, aligned=True)) == (text, aligned)


def test_values_are_shown_without_what_a_terminal_obeys() -> None:
    assert format_value("caf\xe9 \x1b[2J\n\u202e") == r"'café \x1b[2J\n\u202e'"
    assert format_value("\ud800") == r"'\ud800'"
    assert format_value("x" * 50) == f"'{'x' * 37}...'"


@pytest.mark.parametrize(
    ("time_s", "text"),
    [(1_494_000_005, "2017-05-05 16:00:05 UTC"), (0, "1970-01-01 00:00:00 UTC"), (1e300, "-")],
)
def test_times_as_dates(time_s: float, text: str) -> None:
    assert format_time(time_s) == text
