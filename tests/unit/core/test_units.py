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
    format_factor,
    format_percent,
    format_time,
    format_value,
    parse_bytes,
    parse_duration_s,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("120s", 120),
        ("10m", 600),
        ("1.5h", 5400),
        (" 2 d ", 172800),
        ("50ms", 0.05),
        ("1h30m", 5400),
        ("1 h 30 min", 5400),
        ("2 min 3 s", 123),
        ("2 min 03 s", 123),
        ("1d2h", 93600),
        ("1,234 d 3 h", 106628400),
        ("90 SEC", 90),
        ("2 hours", 7200),
        ("12 us", 12e-6),
        ("5\u00b5s", 5e-6),
        (".5h", 1800),
        ("1 m 1 s 500 ms", 61.5),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "x",
        "-3s",
        "0",
        "0 s",
        "3 weeks",
        "1:30",
        "nan",
        "inf",
        "1e3",
        "forever",
        "30m1h",
        "1h 5",
        "5 5s",
        "1h1h",
        "s",
        "1 h -2 min",
        "1_000s",
        "\u0663s",
        "1h\n30m x",
        "9e99d",
        "99999999999d",
    ],
)
def test_no_duration(text: str) -> None:
    with pytest.raises(UsageError, match="not a duration"):
        parse_duration_s(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("2GB", 2 * 10**9), ("512MiB", 2**29), ("7", 7), ("1,000 TB", 10**15), ("1.5 kB", 1500)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_bytes(text) == size


def test_no_size() -> None:
    for text in ("lots", "0", "-1GB", "1e9", "9" * 30, "", "nan"):
        with pytest.raises(UsageError, match="not a size"):
            parse_bytes(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"), (float("nan"), "-"), (0.0471, "47.1 ms"), (3.21, "3.21 s"),
        (59.96, "1 min 00 s"), (250, "4 min 10 s"), (3599.9, "1 h 00 min"),
        (47100, "13 h 05 min"), (183600, "2 d 3 h"), (-5, "-5 s"), (86399, "1 d 0 h"),
        (86369, "23 h 59 min"), (3599.4, "59 min 59 s"), (0, "0 ms"), (1.2e-5, "12 us"),
        (float("inf"), "forever"), (float("-inf"), "-forever"), (1e9, "11,574 d 2 h"),
        (0.99949, "999 ms"), (0.9996, "1 s"), (9.996e-4, "1 ms"), (1e300, None),
    ],
)  # fmt: skip
def test_duration_text(seconds: float | None, text: str) -> None:
    shown = format_duration(seconds)
    assert shown == text if text else "e" not in shown


@given(st.floats(min_value=1e-6, max_value=8e10))
def test_a_duration_that_is_printed_is_read_as_the_same_to_its_rounding(seconds: float) -> None:
    shown = format_duration(seconds)
    # three digits below a minute, then half of the smaller unit
    step_s = {"s": 1, "min": 60, "h": 3600}
    units = shown.split()[1::2]
    rounding_s = 0.0051 * seconds if len(units) == 1 else 0.51 * step_s[units[-1]]
    assert parse_duration_s(shown) == pytest.approx(seconds, abs=rounding_s)
    assert parse_duration_s(shown.replace(" ", "")) == parse_duration_s(shown)
    assert "e+" not in shown


@given(st.integers(1, 10**17))
def test_a_size_that_is_printed_is_read_as_the_same_to_its_rounding(size_bytes: int) -> None:
    shown = format_bytes(size_bytes)
    assert parse_bytes(shown) == pytest.approx(size_bytes, rel=0.0051)
    assert "e" not in shown


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_no_number_raises_or_is_a_power_of_ten_that_is_large(number: float) -> None:
    for shown in (
        format_duration(number),
        format_bytes(number),
        format_count(number),
        format_factor(number),
        format_percent(number),
    ):
        assert "e+" not in shown


@pytest.mark.parametrize(
    ("factor", "text"),
    [(3.42, "3.4x"), (99.6, "100x"), (1834, "1,800x"), (0.5, "0.5x"), (float("inf"), "-")],
)
def test_factors(factor: float, text: str) -> None:
    assert format_factor(factor) == text


def test_bytes_and_counts() -> None:
    assert format_bytes(1.23e9) == "1.23 GB"
    assert [format_bytes(size) for size in (999.6e6, 999_500, 5e16, float("inf"))] == [
        "1 GB", "1 MB", "50,000 TB", "-",
    ]  # fmt: skip
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
