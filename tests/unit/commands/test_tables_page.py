"""Each command of docs/tables.md does what the page says."""

from __future__ import annotations

import gzip
import re
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from logs import Row, log_rows, log_text, utc

from ctrkit.cli.app import run_command

PAGE = Path(__file__).parents[3] / "docs" / "tables.md"
ROWS = log_rows()
BASE = re.search(r"ctrkit (data prepare .*) --table log.csv", PAGE.read_text())
COMMANDS = sorted(
    set(re.findall(r"`(--table [^`]+)`", PAGE.read_text().partition("| --- | --- | --- |")[2]))
)


def _table(rows: list[Row]) -> pa.Table:
    columns = (list(column) for column in zip(*rows, strict=True))
    return pa.table(dict(zip(("user", "item", "ts", "label"), columns, strict=True)))


def _titles(title: str) -> str:
    lines = [f"{u},{i},{title},{t},{y}" for u, i, t, y in ROWS]
    return "\n".join(["user,item,title,ts,label", *lines, ""])


def _every(count: int, column: int, text: str) -> str:
    """The log with another text in a column of every so many rows."""
    rows = [list(map(str, row)) for row in ROWS]
    for row in rows[::count]:
        row[column] = text
    return "\n".join(["user,item,ts,label", *map(",".join, rows), ""])


def _write_files(folder: Path) -> None:
    events = ("view", "fav", "cart", "buy")
    rated = [(u, i, 1 + n % 5, t) for n, (u, i, t, _) in enumerate(ROWS)]
    texts = {
        "log.csv": log_text(ROWS),
        "tilde.txt": log_text(ROWS, delimiter="~"),
        "ratings.dat": "".join("::".join(map(str, row)) + "\n" for row in rated),
        "report.csv": "# of May\nsep=;\n" + log_text(ROWS, delimiter=";"),
        "quoted.csv": _titles('"one, ""two""\nlines"') + '1,2,"open,1494000000,1\n',
        "windows.csv": log_text(ROWS, end="\r\n\r\n"),
        "avazu.csv": log_text(ROWS, time=lambda s: utc(s).strftime("%y%m%d%H")),
        "dates.csv": log_text(ROWS, time=lambda s: utc(s).strftime("%d/%m/%Y %H:%M")),
        "numbers.csv": log_text(ROWS, delimiter=";", time=lambda s: f"{s},5"),
        "steps.csv": log_text(ROWS, time=lambda s: str(s - ROWS[0][2])),
        "gaps.csv": _every(10, 0, "NaN"),
        "floats.csv": log_text(ROWS, user=lambda u: f"{u}.0" if u % 2 else f"{2**60 + u:.16e}"),
        "words.csv": log_text(ROWS, label=lambda y: ("No", "Yes")[y]),
        "events.csv": log_text([(u, i, t, n % 4) for n, (u, i, t, _) in enumerate(ROWS)],
                               label=lambda y: events[y]),
        "ratings.csv": log_text([(u, i, t, y) for u, i, y, t in rated]),
        "broken.csv": _every(3, 3, "1,2"),
    }  # fmt: skip
    for name, text in texts.items():
        (folder / name).write_text(text)
    (folder / "gbk.csv").write_bytes(log_text(ROWS, user=lambda u: f"用户{u}").encode("gbk"))
    (folder / "log.csv.gz").write_bytes(gzip.compress(log_text(ROWS).encode()))
    pq.write_table(_table(ROWS), folder / "log.parquet")
    for number in range(3):
        part = folder / "parts" / f"day=2017-05-0{number + 6}"
        part.mkdir(parents=True)
        pq.write_table(_table(ROWS[number * 40 : number * 40 + 40]), part / "part-0.parquet")
    (folder / "parts" / "_SUCCESS").touch()


#: what the summary of a command must say, by a part of the command
SAYS = {
    "tilde.txt": "120 rows = 120 used",
    "ratings.dat": "a row is positive where label >= 4",
    "report.csv": "line 3 is the header",
    "numbers.csv": "has decimal commas: 0,5 is read as 0.5",
    "quoted.csv": "1 line with a quote that is never closed, first line 242",
    "windows.csv": "121 blank lines between them",
    "avazu.csv": "column 'ts' is read as YYMMDDHH",
    "dates.csv": "2017-05-05 16:00:00 UTC to 2017-05-10",
    "steps.csv": "1970-01-01 00:00:00 UTC to 1970-01-05",
    "gaps.csv": "120 rows = 108 used + 12 dropped (10 %)",
    "floats.csv": "floating-point values above 2^53 (9,007,199,254,740,992)",
    "events.csv": "a row is positive where label is buy or cart",
    "broken.csv": "120 rows = 80 used + 40 dropped (33 %)",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert BASE is not None
    _write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    words = [word.strip("'") for word in f"{BASE[1]} {command}".split()]
    monkeypatch.setattr(sys, "argv", ["ctrkit", *words])
    assert run_command() == 0
    shown = " ".join(capsys.readouterr().out.split())
    expected = [words for name, words in SAYS.items() if name in command]
    assert all(words in shown for words in expected), shown
    assert "120 rows = 120 used + 0 dropped" in shown or expected


def test_each_row_with_options_has_been_tried() -> None:
    assert len(COMMANDS) >= 18
    assert all(any(name in command for command in COMMANDS) for name in SAYS)
