from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from logs import log_rows, log_text, prepared

from ctrkit.core.errors import UsageError
from ctrkit.ctr.data.tables.numbers import _PATTERNS, choose_spelling

ROWS = log_rows()
POSITIVES = sum(row[3] for row in ROWS)


def _prepare(tmp_path: Path, **written: Callable[[int], str]):  # type: ignore[no-untyped-def]
    said = {"label_threshold": 3.0} if "label" in written else {}
    (tmp_path / "log.csv").write_text(log_text(ROWS, delimiter=";", **written))
    return prepared(tmp_path / "log.csv", tmp_path / "store", **said)


@pytest.mark.parametrize(
    "time",
    [
        lambda s: f"{s},5",
        lambda s: f"{s:,}",
        lambda s: f"{s:,}.25",
        lambda s: f"{s:,}".replace(",", "."),
        lambda s: f"{s:,}".replace(",", ".") + ",75",
        lambda s: f"{s:,}".replace(",", " "),
        lambda s: f"{s:,}".replace(",", "\u202f"),
        lambda s: f"{s:,}".replace(",", "'"),
        lambda s: f"{s * 1000:,}",
        lambda s: f"{s / 86400 + 25569:.8f}".replace(".", ","),
    ],
)
def test_times_in_numbers_as_people_write_them(tmp_path: Path, time: Callable[[int], str]) -> None:
    result = _prepare(tmp_path, time=time)
    expected = [row[2] for row in ROWS]
    assert all(abs(a - b) <= 1 for a, b in zip(result.times, expected, strict=True))
    assert any(re.search("decimal commas|groups its digits", n) for n in result.reading.notes)


@pytest.mark.parametrize(("zero", "one"), [("0,0", "1,0"), ("0,00", "1,00"), ("0,000", "1,000")])
def test_labels_with_decimal_commas(tmp_path: Path, zero: str, one: str) -> None:
    text = log_text(ROWS, delimiter=";", label=lambda label: one if label else zero)
    (tmp_path / "log.csv").write_text(text)
    assert prepared(tmp_path / "log.csv", tmp_path / "store").positives == POSITIVES


@pytest.mark.parametrize(("low", "high"), [("2,5", "4,5"), ("2,50", "4,125"), ("1", "1.234,5")])
def test_ratings_with_decimal_commas(tmp_path: Path, low: str, high: str) -> None:
    assert _prepare(tmp_path, label=lambda y: high if y else low).positives == POSITIVES


@pytest.mark.parametrize(("low", "high"), [("1,234", "5,678"), ("1,5", "1,234,567")])
def test_a_comma_that_may_be_either_is_asked_about(tmp_path: Path, low: str, high: str) -> None:
    with pytest.raises(UsageError, match="column 'label' has numbers with a comma, such as '1,"):
        _prepare(tmp_path, label=lambda y: high if y else low)


def test_a_single_cell_with_a_comma_is_counted_as_no_number(tmp_path: Path) -> None:
    text = log_text(ROWS * 2, delimiter=";") + "1;1;1494000000;1,234\n"
    (tmp_path / "log.csv").write_text(text)
    result = prepared(tmp_path / "log.csv", tmp_path / "store")
    assert result.meta.bad_rows == {"log.csv: label is not 0 or 1": 1}


def test_words_with_commas_are_left_as_they_are(tmp_path: Path) -> None:
    text = log_text(ROWS, delimiter=";", label=lambda y: "1,5" if y else "view")
    (tmp_path / "log.csv").write_text(text)
    result = prepared(tmp_path / "log.csv", tmp_path / "store", positive=("1,5",))
    assert result.positives == POSITIVES


def _kind(text: str) -> str | None:
    return next((n for n, pattern in _PATTERNS.items() if re.fullmatch(pattern, text)), None)


@given(st.integers(0, 10**15), st.integers(0, 10**6), st.sampled_from([",", ".", " ", "'"]))
def test_a_grouped_number_comes_back(whole: int, part: int, gap: str) -> None:
    comma = gap == "."
    written = f"{whole:,}".replace(",", gap)
    written += f"{',' if comma else '.'}{part}" if part else ""
    kind = _kind(written)
    if kind in (None, "either"):
        return  # plain, or nothing decides it
    spelling = choose_spelling("log.csv", "x", {kind: 1}, written)
    assert spelling is not None
    assert re.fullmatch(spelling.test, written)
    plain = re.sub(spelling.removed, "", written)
    plain = plain.replace(",", ".") if spelling.comma else plain
    assert plain == (f"{whole}.{part}" if part else str(whole))
