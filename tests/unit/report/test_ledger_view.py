"""The section and the chart of where a run's time went."""

from __future__ import annotations

import dataclasses
import json
import time
import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from typing import Any

import pytest

from ctrkit.core.files import write_table
from ctrkit.report.blocks import Facts, Paragraph, Table
from ctrkit.report.charts.ledger_chart import GROUPS, ledger_chart, merged, moments
from ctrkit.report.contents import contents_json
from ctrkit.report.html import run_pages
from ctrkit.report.ledger_view import (
    HEADING,
    WORDS,
    end_words,
    ledger_section,
    moment_words,
    spending_words,
)
from ctrkit.report.pictures import train_pictures
from ctrkit.report.run_reader import read_contents
from ctrkit.report.views import report_view
from ctrkit.supervise.ledger import LEDGER, LedgerRow, ledger_table, totals
from ctrkit.supervise.time_account import CATEGORIES
from tests.unit.report.conftest import MakeRun, epoch_row

BEGAN = 1_790_000_000.0


def row(minute: int, seconds: dict[str, float], **values: Any) -> LedgerRow:
    wall_s = sum(seconds.values())
    defaults: dict[str, Any] = {
        "ended_unix_s": BEGAN + 60.0 * minute + wall_s, "session": 1, "launch": 1, "epoch": 1,
        "step": 10, "wall_s": wall_s, "rows": 120, "steps": 1, "rows_per_s": 120 / wall_s,
        "cpu_cores": 1.5, "other_cores": 0.25, "rss_bytes": 3_000_000_000, "pss_bytes": None,
        "available_bytes": None, "swap_used_bytes": 0, "swapped_in_bytes": 0,
        "swapped_out_bytes": 0, "device_bytes": None, "temperature_c": None, "throttles": None,
        "speed_limit": None,
    }  # fmt: skip
    return LedgerRow(**(defaults | values), seconds=dict.fromkeys(CATEGORIES, 0.0) | seconds)


ROWS = [
    row(0, {"startup": 6.0, "data_wait": 4.0, "compute": 50.0}),
    row(1, {"data_wait": 6.0, "compute": 54.0}, pss_bytes=2_000_000_000),
    row(2, {"stopped": 30.0, "compute": 30.0}),
    row(3, {"asleep": 3540.0, "compute": 60.0}, session=2),
]


def test_the_table_has_what_took_time_and_its_share() -> None:
    table, facts = ledger_section(ROWS).blocks
    assert isinstance(table, Table)
    assert table.rows == (
        ("start-up", "6 s", "0.2 %"),
        ("data wait", "10 s", "0.3 %"),
        ("forward and backward", "3 min 14 s", "5.1 %"),
        ("stopped", "30 s", "0.8 %"),
        ("host asleep", "59 min 00 s", "94 %"),
    )
    assert table.tones == ("plain", "plain", "plain", "bad", "bad")
    assert isinstance(facts, Facts)
    assert dict(facts.rows) == {
        "wall clock": "1 h 03 min in 2 sessions",
        "throughput": "0.127 rows/s over all of it",
        "CPU": "1.5 cores by this run, on average",
        "other CPU": "0.2 cores by other processes, on average",
        "memory": "up to 3 GB",
    }


def test_figures_that_only_some_machines_tell_are_told_there() -> None:
    hot = row(
        0, {"compute": 60.0}, temperature_c=91.4, throttles=3, swapped_in_bytes=2_000_000_000,
        device_bytes=5_000_000_000, speed_limit=0.6,
    )  # fmt: skip
    facts = ledger_section([hot], "mps").blocks[1]
    assert isinstance(facts, Facts)
    assert facts.rows[-5:] == (
        ("swap", "2 GB swapped in and out on this machine"),
        ("device memory", "up to 5 GB"),
        ("temperature", "up to 91 °C"),
        ("throttled", "3 times"),
        ("throttled", "down to 60 % of full speed"),
    )
    note = ledger_section([hot], "mps").blocks[2]
    assert isinstance(note, Paragraph)
    assert "asynchronously" in note.text


def test_every_category_has_a_name_and_a_colour() -> None:
    assert set(WORDS) == set(CATEGORIES)
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(CATEGORIES)


def test_a_report_shows_it_and_json_has_it(make_run: MakeRun) -> None:
    run = make_run("train", epochs=[epoch_row(1)])
    assert read_contents(run.path).ledger == ()
    assert contents_json(read_contents(run.path))["time"] is None
    write_table(run.path / "ledger.parquet", ledger_table(ROWS))
    contents = read_contents(run.path)
    assert list(contents.ledger) == ROWS
    assert HEADING in [section.heading for section in report_view(contents).sections]
    assert json.loads(json.dumps(contents_json(contents)))["time"] == totals(ROWS)
    pictures, missing = train_pictures(contents, "r0")
    assert (len(pictures[HEADING]), missing) == (1, [])


def test_a_damaged_ledger_is_said(make_run: MakeRun) -> None:
    run = make_run("train", epochs=[epoch_row(1)])
    (run.path / "ledger.parquet").write_bytes(b"PAR1 no more")
    contents = read_contents(run.path)
    assert contents.ledger == ()
    assert any("ledger.parquet: cannot be read" in line for line in contents.missing)


def at(unix_s: float) -> dict[str, Any]:
    return {"at": datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="seconds")}


def test_incidents_are_marked_where_they_happened() -> None:
    incidents = [
        at(BEGAN + 90), at(BEGAN - 500), at(BEGAN + 1e6), {"at": "soon"}, {}, at(BEGAN + 200),
    ]  # fmt: skip
    assert moments(ROWS, incidents) == [90.0, 200.0]
    # between two sessions nothing is counted, so what lies there is not shown
    later = dataclasses.replace(ROWS[3], ended_unix_s=ROWS[3].ended_unix_s + 9000)
    assert moments([*ROWS[:3], later], [at(BEGAN + 1000)]) == []


def test_the_page_says_first_what_the_time_was_lost_to(make_run: MakeRun) -> None:
    run = make_run("train", epochs=[epoch_row(1)])
    write_table(run.path / LEDGER, ledger_table(ROWS))
    (page,) = run_pages([read_contents(run.path)])
    assert page.summary is not None
    (card,) = [card for card in page.summary.cards if card.label == "Time lost to"]
    assert (card.value, card.tone) == ("host asleep", "bad")
    assert card.details[0].endswith("94 % of the time")
    headings = [part.heading for part in page.parts]
    assert headings[:3] == ["The status in full", "Where the time went", "Epochs"]


def test_what_takes_the_time_now() -> None:
    before = {"compute": 10.0, "data_wait": 5.0}
    now = {"compute": 17.0, "data_wait": 6.0, "optimizer": 1.9, "logging": 0.1}
    assert (
        spending_words(before, now) == "forward and backward 70 %, optimizer 19 %, data wait 10 %"
    )
    assert spending_words(now, now) == ""


def test_the_chart_is_an_svg_with_the_groups_that_took_time() -> None:
    chart = ledger_chart(ROWS, [at(BEGAN + 90)])
    assert chart is not None
    assert [key.label for key in chart.keys] == [
        "data wait", "forward and backward", "start-up", "stopped", "host asleep", "incident",
    ]  # fmt: skip
    assert "host asleep 94 %" in chart.alt
    for svg in (chart.wide, chart.narrow):
        names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
        text = "".join(ET.fromstring(svg.replace("<svg", f"<svg {names}", 1)).itertext())
        assert "Share of the time" in text
        assert "var(--asleep)" in svg
    assert ledger_chart([], []) is None


def test_a_long_run_is_drawn_in_as_many_bars_as_can_be_seen() -> None:
    rows = [row(m, {"compute": 50.0, "data_wait": 10.0}, rows=m) for m in range(1001)]
    few = merged(rows, 400)
    assert len(few) == 334
    assert totals(few) == totals(rows)
    assert sum(r.rows for r in few) == sum(r.rows for r in rows)
    assert few[1].rows_per_s == (3 + 4 + 5) / 180
    assert merged(rows[:5], 400) == rows[:5]


@pytest.mark.parametrize(
    ("left_s", "low_s", "high_s", "expected"),
    [
        (5400.0, 5100.0, 6000.0, "run left 1 h 30 min, until 15:30 (15:25 .. 15:40)"),
        (5400.0, 5400.0, 5400.0, "run left 1 h 30 min, until 15:30"),
        (-3.0, -3.0, -3.0, "run left 0 ms, until 13:59"),
        (86400.0, 80000.0, 90000.0,
         "run left 1 d 0 h, until Fri 06 Mar 14:00 (12:13 .. 15:00)"),
        (32400.0, 30000.0, 39600.0, "run left 9 h 00 min, until 23:00 (22:20 .. Fri 06 Mar 01:00)"),
    ],
)  # fmt: skip
def test_the_expected_end_in_words(
    left_s: float, low_s: float, high_s: float, expected: str
) -> None:
    now = time.mktime((2026, 3, 5, 14, 0, 0, 0, 0, -1))
    assert end_words(now, left_s, low_s, high_s) == expected
    assert moment_words(now) == "Thu 05 Mar 14:00"
