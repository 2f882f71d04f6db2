from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from logs import Row, log_rows, prepared

from ctrkit.ctr.data.tables.text_records import Dialect, joined_spans, record_blocks

ROWS = log_rows()
COMMAS = Dialect()


@pytest.mark.parametrize(
    ("record", "values"),
    [
        ('1,"a, b",', ["1", "a, b", ""]),
        ('"say ""hi""",2', ['say "hi"', "2"]),
        ('"open,2,3', ['"open', "2", "3"]),
        ('5" tv,2', ['5" tv', "2"]),
        (' "a" , "b"', ["a", "b"]),
        ('"a\nb",2', ["a\nb", "2"]),
        ('"",2', ["", "2"]),
        ('",2', ['"', "2"]),
    ],
)
def test_values_of_a_record(record: str, values: list[str]) -> None:
    assert COMMAS.values(record) == values


def test_a_delimiter_of_several_characters() -> None:
    dialect = Dialect("::")
    assert dialect.values('1::"a::b"::c:d') == ["1", "a::b", "c:d"]


@given(st.lists(st.text(st.characters(exclude_characters='",\n')), min_size=2, max_size=6))
def test_what_is_quoted_comes_back(values: list[str]) -> None:
    stripped = [value.strip() for value in values]
    assert COMMAS.values(",".join(f'"{value}"' for value in stripped)) == stripped


def _joined(text: str, columns: int, *, size: int) -> list[tuple[int, str]]:
    lines = text.splitlines(keepends=True)
    blocks = ["".join(lines[i : i + size]).encode() for i in range(0, len(lines), size)]
    tables = record_blocks(blocks, COMMAS, columns)
    return [(row["line"], row["text"]) for table in tables for row in table.to_pylist()]


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_records_over_several_lines_and_quotes_that_are_never_closed(size: int) -> None:
    text = '1,"a\nb, c\n\nd",3\n1,"open,3\n4,5,6\n"b\n",2,3\n7,"8,9\n7,"a","b\nc"\n1,2,"end\n'
    assert _joined(text, 3, size=size) == [
        (1, '1,"a\nb, c\n\nd",3'),
        (5, '1,"open,3'),
        (6, "4,5,6"),
        (7, '"b\n",2,3'),
        (9, '7,"8,9'),
        (10, '7,"a","b\nc"'),
        (12, '1,2,"end'),
    ]


def test_a_record_does_not_go_on_for_ever() -> None:
    lines = ['1,"open', *["text"] * 5000, '",3']
    spans, open_line = joined_spans(lines, [0, 5001], COMMAS, 3)
    assert spans == []
    assert open_line == 5001


def _titled(rows: list[Row], titles: dict[int, str]) -> str:
    lines = [
        f"{user},{item},{titles.get(number, 'tv')},{time_s},{label}\n"
        for number, (user, item, time_s, label) in enumerate(rows)
    ]
    return "user,item,title,ts,label\n" + "".join(lines)


@pytest.mark.parametrize(
    ("titles", "open_quotes"),
    [
        ({30: '"Best of'}, 1),  # the next quote is none at all
        ({30: '"Best of', 90: '"Rest of'}, 2),
        ({30: '"Best of', 31: '"x, y"', 90: '"z"'}, 1),
        ({30: '"Best', 31: '"Rest', 32: '"Lest'}, 3),
        ({n: f'{n}" tv' for n in range(120)}, 0),
        (dict.fromkeys(range(0, 120, 7), '"two\nlines, here"') | {30: '"Best of'}, 1),
        (dict.fromkeys(range(120), r'"say \"hi\", you"'), 0),
        (dict.fromkeys(range(0, 120, 3), '"C:\\"'), 0),
    ],
)
def test_no_quote_swallows_lines(tmp_path: Path, titles: dict[int, str], open_quotes: int) -> None:
    (tmp_path / "log.csv").write_text(_titled(ROWS, titles))
    result = prepared(tmp_path / "log.csv", tmp_path / "store")
    assert result.reading.used == len(ROWS)
    assert result.positives == sum(row[3] for row in ROWS)
    assert len(result.reading.warnings) == bool(open_quotes)
    if open_quotes:
        assert f"{open_quotes} line" in result.reading.warnings[0]
        assert "never closed, first line " in result.reading.warnings[0]


def test_an_open_quote_before_a_delimiter_costs_its_line_only(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(_titled(ROWS, {30: '"Best, of'}))
    result = prepared(tmp_path / "log.csv", tmp_path / "store")
    (reason,) = result.reading.first_bad.items()
    assert reason[0] == "log.csv: line has more than the 5 columns of the header"
    assert reason[1].startswith("line 32: ")
    assert result.reading.used == len(ROWS) - 1


@pytest.mark.parametrize(
    "ends", [("\n", "\r"), ("\r\n", "\r", "\n"), ("\r\r\n", "\r"), ("\r", "\r", "\n")]
)
@pytest.mark.parametrize("title", ["tv", '"a\rb"', '"a\r\nb\rc"'])
def test_line_ends_of_several_kinds_join_no_rows(
    tmp_path: Path, ends: tuple[str, ...], title: str
) -> None:
    text = "user,item,title,ts,label" + ends[0]
    for number, (u, i, t, y) in enumerate(ROWS):
        text += f"{u},{i},{title},{t},{y}" + ends[number % len(ends)]
    (tmp_path / "log.csv").write_bytes(text.encode())
    result = prepared(tmp_path / "log.csv", tmp_path / "store")
    assert result.meta.bad_rows == {}
    assert result.reading.rows == len(ROWS)


def test_a_carriage_return_in_a_value_without_quotes_ends_no_line(tmp_path: Path) -> None:
    text = "user,item,title,ts,label\r\n"
    text += "".join(f"{u},{i},a\rb,{t},{y}\r\n" for u, i, t, y in ROWS)
    (tmp_path / "log.csv").write_bytes(text.encode())
    result = prepared(tmp_path / "log.csv", tmp_path / "store")
    assert (result.reading.rows, result.meta.bad_rows) == (len(ROWS), {})


def test_a_long_run_of_lines_that_end_with_carriage_returns(tmp_path: Path) -> None:
    rows = "".join(f"{u},{i},{'x' * 400},{t},{y}\r" for u, i, t, y in ROWS)
    times = (30 << 20) // len(rows)
    (tmp_path / "log.csv").write_bytes(b"user,item,title,ts,label\n" + rows.encode() * times)
    result = prepared(tmp_path / "log.csv", tmp_path / "store")
    assert (result.reading.rows, result.meta.bad_rows) == (len(ROWS) * times, {})
