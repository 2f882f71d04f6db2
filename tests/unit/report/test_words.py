import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrkit.core.config import make_cell
from ctrkit.report.words import (
    cell_words,
    clean,
    deviation_words,
    factor_writer,
    flag_words,
    percent,
    projection_words,
    range_words,
    rate_words,
    step_words,
)


@given(st.text(max_size=300))
def test_clean_text_is_one_printable_line(text: str) -> None:
    line = clean(text, 100)
    assert len(line) <= 100
    assert "\n" not in line
    assert all(c.isprintable() or c == " " for c in line if ord(c) < 0x250)


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\u202eb", "a\\x202eb"),
        ("two\r\nlines\there", "two lines here"),
        ("\x00\x7f\x9b", "\\x00\\x7f\\x9b"),
        ("\ud800", "\\xd800"),
    ],
)
def test_clean_shows_what_would_steer_a_terminal(hostile: str, shown: str) -> None:
    assert clean(hostile) == shown


@pytest.mark.parametrize(
    ("low_s", "high_s", "words"),
    [
        (90_300, 104_400, "25.1 .. 29.0 h"),
        (1_680, 1_860, "28.0 .. 31.0 min"),
        (4.211, 4.298, "4.21 .. 4.30 s"),
        (0.0412, 0.0481, "41.2 .. 48.1 ms"),
        (300_000, 500_000, "3.5 .. 5.8 d"),
        (60, 7200, "1 min 00 s .. 2 h 00 min"),
        (10_000, 100_000, "3 .. 28 h"),
        (5, 5, "5.00 .. 5.00 s"),
    ],
)
def test_a_range_has_one_unit_and_digits_that_tell_its_ends_apart(
    low_s: float, high_s: float, words: str
) -> None:
    assert range_words(low_s, high_s) == words


def test_projection_without_interval_is_only_the_time() -> None:
    assert projection_words(97_300, 90_300, 104_400) == "1 d 3 h (25.1 .. 29.0 h)"
    assert projection_words(97_300, None, None) == "1 d 3 h"
    assert projection_words(None, None, None) == "-"


def test_a_step_has_the_wider_half_of_its_interval() -> None:
    assert step_words(11.2, 11.1, 11.5) == "11.2 s ±0.3"
    assert step_words(0.0471, 0.0463, 0.0474) == "47.1 ms ±0.8"
    assert step_words(11.2, 11.199, 11.201) == "11.2 s ±<0.1"
    assert step_words(11.2, None, None) == "11.2 s"
    assert step_words(None, None, None) == ""


def test_shares_rates_and_deviations() -> None:
    assert [percent(v) for v in (0.004, 0.0999, 0.58, None)] == ["0.4 %", "10 %", "58 %", ""]
    assert [rate_words(v) for v in (1.234, 183.4, 102_400, None)] == ["1.23", "183", "102,400", ""]
    assert deviation_words(1862, 1780) == "+4.6 %"
    assert deviation_words(1600, 1780) == "-10.1 %"
    assert deviation_words(21, 3.5) == "6.0x as long"
    assert deviation_words(1, 0) == ""


def test_a_cell_in_words_names_what_applies() -> None:
    assert (
        cell_words(make_cell(loader="batches", workers=2, threads=2))
        == "cpu, batches loader, 2 workers (spawn, prefetch 2), 2 threads, batch 2,048"
    )
    assert (
        cell_words(make_cell(device="cuda", loader="custom", pin=True, threads=1, nproc=2))
        == "cuda, own loader, no workers, pinned memory, 1 thread, batch 2,048, 2 processes"
    )


def test_unknown_flags_are_shown_as_they_are_but_harmless() -> None:
    words = flag_words(["provisional", "provisional", "odd\x1b flag"])
    assert len(words) == 2
    assert words[0].startswith("provisional: ")
    assert words[1] == "odd\\x1b flag"


@pytest.mark.parametrize(
    ("factor", "low", "high", "said"),
    [
        (8.124, 7.634, 8.651, "8.12 7.63 8.65"),
        (6.291, 1.562, 25.319, "6.3 1.6 25"),
        (150.2, 10.0, 2340.0, "150 10 2,300"),
    ],
)
def test_a_factor_with_a_wide_interval_has_two_digits(
    factor: float, low: float, high: float, said: str
) -> None:
    write = factor_writer(factor, low, high, decimals=2)
    assert " ".join(map(write, (factor, low, high))) == said
    assert factor_writer(factor, None, None, decimals=2)(1.004) == "1.00"
