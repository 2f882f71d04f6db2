from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from logs import BEGIN_S, log_rows, log_text, prepared, utc

from ctrkit.core.errors import UsageError
from ctrkit.ctr.data.tables import times

DAY_S = 86_400
#: 4 times a day over 40 days, so that days, months and hours vary
ROWS = [(user, item, BEGIN_S + n * 6 * 3600, y) for n, (user, item, _, y) in
        enumerate(log_rows(160))]  # fmt: skip
NOW_S = 1_790_000_000.0


def _prepare(tmp_path: Path, time: Callable[[int], str], **said: object):  # type: ignore[no-untyped-def]
    text = log_text(ROWS, time=lambda time_s: f'"{time(time_s)}"')
    (tmp_path / "log.csv").write_text(text)
    return prepared(tmp_path / "log.csv", tmp_path / "store", **said)


def _form(format: str) -> Callable[[int], str]:
    return lambda time_s: utc(time_s).strftime(format)


@pytest.mark.parametrize(
    ("time", "unit_s", "name"),
    [
        (_form("%y%m%d"), DAY_S, "YYMMDD"),
        (_form("%y%m%d%H"), 3600, "YYMMDDHH"),
        (_form("%y%m%d%H%M"), 60, "YYMMDDHHMM"),
        (_form("%y%m%d%H%M%S"), 1, "YYMMDDHHMMSS"),
        (_form("%Y%m%d"), DAY_S, "YYYYMMDD"),
        (_form("%Y%m%d%H"), 3600, "YYYYMMDDHH"),
        (_form("%Y%m%d%H%M"), 60, "YYYYMMDDHHMM"),
        (_form("%Y%m%d%H%M%S"), 1, "YYYYMMDDHHMMSS"),
        (_form("%Y%m%d.0"), DAY_S, "YYYYMMDD"),
        (_form("%d/%m/%Y %H:%M"), 60, "day/month/year"),
        (_form("%d.%m.%Y, %H:%M:%S"), 1, "day/month/year"),
        (_form("%m/%d/%Y %I:%M:%S %p"), 1, "month/day/year"),
        (_form("%m/%d/%y %H:%M"), 60, "month/day/year of two digits"),
        (_form("%Y/%m/%d %H:%M"), 60, "ISO 8601"),
        (_form("%Y-%m-%d %H:%M:%S,000"), 1, "year/month/day"),
        (_form("%Y-%m-%d %H"), 3600, "year/month/day"),
        (_form("%Y年%m月%d日 %H:%M"), 60, "year/month/day"),
        (_form("%d %b %Y %H:%M"), 60, "day, month's name, year"),
        (_form("%B %d, %Y"), DAY_S, "month's name, day, year"),
        (_form("%d/%b/%Y:%H:%M:%S +0000"), 1, "a log's or a mail's date"),
        (_form("%a, %d %b %Y %H:%M:%S GMT"), 1, "a log's or a mail's date"),
        (lambda s: f"{s / DAY_S + 25_569:.6f}", 1, "days as Excel counts them"),
        (lambda s: str(s // DAY_S + 25_569), DAY_S, "days as Excel counts them"),
        (lambda s: f"{s}.000000", 1, "Unix seconds"),
        (lambda s: str(s * 1000), 1, "Unix milliseconds"),
        (lambda s: str(s * 10**9), 1, "Unix nanoseconds"),
        (lambda s: utc(s).isoformat() if s % 7 else str(s), 1, "mixed: "),
    ],
)
def test_forms_are_found(
    tmp_path: Path, time: Callable[[int], str], unit_s: int, name: str
) -> None:
    result = _prepare(tmp_path, time)
    expected = [row[2] // unit_s * unit_s for row in ROWS]
    # Excel's fractions of a day are not exact
    assert all(abs(a - b) <= 1 for a, b in zip(result.times, expected, strict=True))
    assert f"column 'ts' is read as {name}" in result.reading.notes[0] or "mixed" in name
    assert result.meta.bad_rows == {}


def test_seconds_and_milliseconds_in_one_column(tmp_path: Path) -> None:
    result = _prepare(tmp_path, lambda s: str(s * 1000 if s // 21600 % 2 else s))
    assert result.times == [row[2] for row in ROWS]
    assert "mixed: 80 as Unix seconds, 80 as Unix milliseconds" in result.reading.notes[0]


def test_numbers_that_lost_a_leading_zero(tmp_path: Path) -> None:
    user, item, ts, label = (list(column) for column in zip(*ROWS, strict=True))
    begin_s = BEGIN_S - 12 * 365 * DAY_S  # 2005
    numbers = [int(utc(begin_s + n * 6 * 3600).strftime("%y%m%d%H")) for n in range(len(ts))]
    table = {"user": user, "item": item, "ts": numbers, "label": label}
    pq.write_table(pa.table(table), tmp_path / "log.parquet")
    result = prepared(tmp_path / "log.parquet", tmp_path / "store")
    assert utc(result.times[0]).year == 2005


@pytest.mark.parametrize(
    "missing", ["0", "-1", "NULL", "NaN", "", "1970-01-01 00:00:00", "0000-00-00 00:00:00"]
)
def test_what_stands_for_no_time(tmp_path: Path, missing: str) -> None:
    lost = {row[2] for row in ROWS[::20]}
    result = _prepare(tmp_path, lambda s: missing if s in lost else _form("%Y-%m-%d %H:%M:%S")(s))
    word = "missing" if missing else "empty"
    assert result.meta.bad_rows == {f"log.csv: ts is {word}": len(lost)}
    assert utc(result.times[0]).year == 2017


@pytest.mark.parametrize("other_s", [820_454_400, 1_690_000_000])
def test_times_far_from_the_rest_are_counted(tmp_path: Path, other_s: int) -> None:
    far = {row[2] for row in ROWS[5:8]}
    result = _prepare(tmp_path, lambda s: str(other_s if s in far else s))
    ((reason, count),) = result.meta.bad_rows.items()
    assert reason.startswith("log.csv: ts is far from the rest, before 201")
    assert count == 3
    assert result.reading.first_bad[reason] == f"line 7: '{other_s}'"


@pytest.mark.parametrize(
    ("time", "message"),
    [
        (lambda s: str(s - BEGIN_S + 977), r"holds '977' \(as Unix seconds it would be 1970-01-01"),
        (lambda s: str(s + 10**9), r"holds '2494000000' .*no time between 1990 and"),
        (lambda s: str(621_355_968_000_000_000 + s * 10**7), "holds '6[0-9]{17}'"),
        (lambda s: "2017", "holds '2017', .*--time-format %Y fits its values"),
        (lambda s: "soon\x1b[2J",
         r"holds 'soon\\x1b\[2J', which is no time .*we know: Unix seconds"),
        (lambda s: f"0{s % 9 + 1}/0{s % 7 + 1}/2017", "'0./0./2017' may be day/month/year or"
         " month/day/year, .*--time-format '%d/%m/%Y' or --time-format '%m/%d/%Y'"),
        (lambda s: f"0{s % 9 + 1}-0{s % 7 + 1}-17", "two digits.*--time-format '%d-%m-%y'"),
        (lambda s: _form("%d/%m/%Y" if s // 21600 % 2 else "%m/%d/%Y")(s), "mixes forms"),
        (lambda s: f"2010{s // 21600 % 12 + 1:02}{s // 21600 % 20 + 1:02}",
         "may be YYYYMMDD or YYMMDDHH.*--time-format YYYYMMDD or --time-format YYMMDDHH"),
        # the 14th to the 27th of May 2017, or the 20th of May 2014 to 2027 at 17 h
        (lambda s: f"{s // 21600 % 9 + 14}052017", "may be DDMMYYYY or YYMMDDHH"),
        (lambda s: f"050{s // 21600 % 9 + 1}2017", "may be DDMMYYYY or MMDDYYYY"),
    ],
)  # fmt: skip
def test_what_cannot_be_told_is_refused_with_a_sample(
    tmp_path: Path, time: Callable[[int], str], message: str
) -> None:
    with pytest.raises(UsageError, match=rf"log\.csv: column 'ts'.*{message}"):
        _prepare(tmp_path, time)


@pytest.mark.parametrize(
    ("time", "said", "first_s"),
    [
        (lambda s: str(s - BEGIN_S), {"time_unit": "s"}, 0),
        (lambda s: str((s - BEGIN_S) // 3600), {"time_unit": "h"}, 0),
        (lambda s: str(s // DAY_S), {"time_unit": "d"}, BEGIN_S // DAY_S * DAY_S),
        (_form("%d/%m/%Y %H:%M"), {"time_format": "%d/%m/%Y"}, BEGIN_S),
        (_form("%H:%M:%S %d.%m.%Y"), {"time_format": "%H:%M:%S %d.%m.%Y"}, BEGIN_S),
        (_form("%y%m%d%H"), {"time_format": "yymmddhh"}, BEGIN_S // 3600 * 3600),
        (_form("%d%m%Y"), {"time_format": "DDMMYYYY"}, BEGIN_S // DAY_S * DAY_S),
    ],
)
def test_what_is_said_is_done(
    tmp_path: Path, time: Callable[[int], str], said: dict[str, str], first_s: int
) -> None:
    assert _prepare(tmp_path, time, **said).times[0] == first_s


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"time_unit": "fortnight"}, "--time-unit fortnight: unknown; choose s, ms"),
        ({"time_format": "DDMMYY"}, "--time-format DDMMYY: unknown; for example '%d/%m/%Y"),
        ({"time_format": "%d", "time_unit": "s"}, "exclude each other"),
        ({"time_format": "%Q"}, "--time-format %Q: %Q is no part of a format"),
        ({"time_format": "%d/%m/%Y"}, r"%d/%m/%Y does not fit column 'ts', which holds '\d+'"),
    ],
)
def test_what_is_said_wrongly(tmp_path: Path, said: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        _prepare(tmp_path, str, **said)


def test_rounded_times_are_warned_of(tmp_path: Path) -> None:
    result = _prepare(tmp_path, lambda s: f"{s:.5e}")
    assert "values such as '1.49400e+09', which are rounded" in result.reading.warnings[0]


def _rule(fitting: dict[str, int], *, cells: int = 100, distinct: int = 100) -> times.TimeRule:
    return times.choose_rule(
        "log.csv", "ts", fitting, cells=cells, fitting_any=max(fitting.values()),
        distinct=distinct, sample="1410210000", now_s=NOW_S,
    )  # fmt: skip


def test_a_calendar_beats_a_unix_time_where_nearly_all_cells_fit_it() -> None:
    assert _rule({"Unix seconds": 100, "YYMMDDHHMM": 100}).words == "YYMMDDHHMM"
    assert _rule({"Unix seconds": 100, "YYMMDDHHMM": 1}).words == "Unix seconds"
    # of a single value nothing can be said
    assert _rule({"Unix seconds": 100, "YYMMDDHHMM": 100}, distinct=1).words == "Unix seconds"


def test_one_cell_decides_between_day_and_month_first_if_all_others_fit_both() -> None:
    assert _rule({"day/month/year": 100, "month/day/year": 99}).words == "day/month/year"
    with pytest.raises(UsageError, match="no value decides it"):
        _rule({"day/month/year": 99, "month/day/year": 99})


def test_what_fits_less_than_half_of_the_cells_is_no_form() -> None:
    with pytest.raises(UsageError, match="'1410210000' .as Unix seconds it would be 2014-09-08"):
        _rule({"YYYYMMDD": 49})


def test_a_month_is_not_taken_for_a_day(tmp_path: Path) -> None:
    rows = log_rows(36)
    text = log_text(rows, time=lambda s: f"{2010 + s // DAY_S % 3}{s // 60 % 12 + 1:02d}")
    (tmp_path / "log.csv").write_text(text)
    with pytest.raises(UsageError, match="YYYYMM"):
        prepared(tmp_path / "log.csv", tmp_path / "store")
    result = prepared(tmp_path / "log.csv", tmp_path / "said", time_format="YYYYMM")
    assert {utc(time_s).day for time_s in result.times} == {1}


@pytest.mark.parametrize(
    ("time", "said", "message"),
    [
        (str, "ms", r"--time-unit ms makes 1970-01-18 of '1494000000'.*Unix seconds; say"
         " --time-unit s$"),
        (str, "ns", "reads as Unix seconds; say --time-unit s"),
        (lambda s: str(s * 1000), "us", "reads as Unix milliseconds; say --time-unit ms"),
        (lambda s: str(s * 10**6), "s", "no date of .*Unix microseconds; say --time-unit us"),
        (_form("%Y%m%d"), "s", "1970-08-22 of '20170505'.*; say --time-format YYYYMMDD"),
    ],
)  # fmt: skip
def test_a_unit_that_another_one_fits_is_refused(
    tmp_path: Path, time: Callable[[int], str], said: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        _prepare(tmp_path, time, time_unit=said)


@pytest.mark.parametrize("offset", ["Z", "+08:00", " -0500", " UTC"])
def test_offsets_that_only_some_times_have_are_warned_of(tmp_path: Path, offset: str) -> None:
    def time(time_s: int) -> str:
        return f"{utc(time_s):%Y-%m-%d %H:%M:%S}" + offset * (time_s // 21600 % 2)

    (warning,) = _prepare(tmp_path, time).reading.warnings
    assert "80 times with an offset from UTC and 80 without" in warning
    assert _prepare_all(tmp_path, offset).reading.warnings == []


def _prepare_all(tmp_path: Path, offset: str):  # type: ignore[no-untyped-def]
    (tmp_path / "all").mkdir()
    return _prepare(tmp_path / "all", lambda s: f"{utc(s):%Y-%m-%dT%H:%M:%S}{offset.strip()}")


def test_steps_of_ones_own_are_read_and_their_dates_are_warned_of(tmp_path: Path) -> None:
    result = _prepare(tmp_path, lambda s: str(s - BEGIN_S), time_unit="s")
    assert result.times[0] == 0
    assert "run from 1970-01-01" in result.reading.warnings[0]
    assert "fine if they count steps of your own" in result.reading.warnings[0]


@pytest.mark.parametrize(
    ("time", "option"),
    [
        (_form("%G-W%V"), "--time-format %G-W%V"),
        (_form("%Y%j"), "--time-format %Y%j"),
        (_form("%Y-%m"), "--time-format %Y-%m"),
        (_form("%H:%M %d.%m.%Y"), "--time-format '%H:%M %d.%m.%Y'"),
        (_form("%d-%b-%y %I.%M.%S.000000 %p"), "--time-format '%d-%b-%y %I.%M.%S.%f %p'"),
        (_form("%Y%m%d%H%M%S123"), "--time-format %Y%m%d%H%M%S%g"),
        (_form("%Y-%m-%d_%H-%M-%S"), "--time-format %Y-%m-%d_%H-%M-%S"),
        (_form("%A, %d %B %Y %H:%M"), "--time-format '%A, %d %B %Y %H:%M'"),
        (_form("%m%d%y"), "--time-format %m%d%y"),
        (_form("%Y-%m-%dT%H"), "--time-format %Y-%m-%dT%H"),
        (_form("%Y_%m_%d_%H"), "--time-format %Y_%m_%d_%H"),
        (lambda s: str(s // DAY_S), "--time-unit d"),
        (lambda s: str(s // 3600), "--time-unit h"),
    ],
)
def test_a_refusal_names_an_option_that_fits(
    tmp_path: Path, time: Callable[[int], str], option: str
) -> None:
    with pytest.raises(UsageError, match=f"; {re.escape(option)} (or .* )?fits? its values"):
        _prepare(tmp_path, time)
    name, _, value = option.partition(" ")
    said = {name.removeprefix("--").replace("-", "_"): value.strip("'")}
    result = _prepare(tmp_path, time, **said)
    assert result.meta.bad_rows == {}
    assert abs(result.times[0] - BEGIN_S) < 32 * DAY_S


@pytest.mark.parametrize(
    "time",
    [
        lambda s: pa.scalar(float(s + s % 977), pa.float32()).as_py(),
        lambda s: str(pa.scalar(float(s + s % 977), pa.float32())).split(": ")[-1].strip("<>"),
        lambda s: str(int(pa.scalar(float((s + s % 977) * 1000), pa.float32()).as_py())),
    ],
)
def test_times_of_single_precision_are_warned_of(
    tmp_path: Path, time: Callable[[int], object]
) -> None:
    result = _prepare(tmp_path, lambda s: str(time(s)))
    assert "holds numbers of single precision (float32)" in result.reading.warnings[0]


def test_single_precision_in_parquet_is_warned_of_with_its_step(tmp_path: Path) -> None:
    users, items, seconds, labels = (list(column) for column in zip(*ROWS[:3], strict=True))
    table = {"user": users, "item": items, "ts": pa.array(seconds).cast("float32", safe=False),
             "label": labels}  # fmt: skip
    pq.write_table(pa.table(table), tmp_path / "log.parquet")
    warnings = prepared(tmp_path / "log.parquet", tmp_path / "store").reading.warnings
    assert any("only each 128th number can be written" in warning for warning in warnings)


@pytest.mark.parametrize("unit_s", [1, 60, 600, 3600, DAY_S])
def test_times_that_are_rounded_to_a_unit_are_not_taken_for_single_precision(
    tmp_path: Path, unit_s: int
) -> None:
    result = _prepare(tmp_path, lambda s: str((s + s % 977) // unit_s * unit_s))
    assert result.reading.warnings == []


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("%d%m%y", "--time-format %d%m%y or --time-format YYMMDD"),
        ("%d%m%y%H", "--time-format %d%m%y%H or --time-format YYMMDDHH"),
        ("%d%m%y%H%M", "--time-format %d%m%y%H%M or --time-format YYMMDDHHMM"),
    ],
)
def test_days_first_are_not_read_as_years_without_a_word(
    tmp_path: Path, format: str, options: str
) -> None:
    with pytest.raises(UsageError, match=f"may be DDMMYY.* as well as YYMMDD.*{options}"):
        _prepare(tmp_path, _form(format))
    result = _prepare(tmp_path, _form(format), time_format=format)
    assert abs(result.times[0] - BEGIN_S) < DAY_S
    (tmp_path / "years").mkdir()
    result = _prepare(tmp_path / "years", _form(format), time_format=options.split()[-1])
    assert result.times[0] < BEGIN_S - 365 * DAY_S  # the user insists


def test_a_year_first_stays_one_where_its_days_also_make_years(tmp_path: Path) -> None:
    begin_s = 1_413_849_600  # 2014-10-21: as DDMMYY, 14 October 2021
    result = _prepare(
        tmp_path, lambda s: utc(begin_s + (s - BEGIN_S) // 60 * 60).strftime("%y%m%d%H")
    )
    assert "is read as YYMMDDHH" in result.reading.notes[0]
    assert abs(result.times[0] - begin_s) < DAY_S


@pytest.mark.parametrize("zone", ["CST", "EST", "BST", "JST"])
@pytest.mark.parametrize("format", ["%Y-%m-%d %H:%M:%S ", "%a, %d %b %Y %H:%M:%S "])
def test_abbreviations_of_time_zones_are_warned_of(tmp_path: Path, zone: str, format: str) -> None:
    result = _prepare(tmp_path, lambda s: utc(s).strftime(format) + zone)
    (warning,) = result.reading.warnings
    first = utc(result.times[0]).strftime("%Y-%m-%d %H:%M:%S UTC")
    assert f"{zone}' is read as {first}" in warning


@pytest.mark.parametrize("end", [" UTC", " GMT", "Z", " Asia/Shanghai", "+08:00", ""])
def test_zones_that_mean_one_thing_are_not_warned_of(tmp_path: Path, end: str) -> None:
    result = _prepare(tmp_path, lambda s: utc(s).strftime("%Y-%m-%d %H:%M:%S") + end)
    assert result.reading.warnings == []


@pytest.mark.parametrize("digits", [6, 9, 12])
def test_days_of_excel_are_right_to_the_second(tmp_path: Path, digits: int) -> None:
    result = _prepare(tmp_path, lambda s: f"{s / DAY_S + 25_569:.{digits}f}")
    assert result.times == [row[2] for row in ROWS]
