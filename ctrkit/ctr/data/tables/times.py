"""Times: in which form a column writes them, decided from how many of its cells fit each form.

A cell fits a form if it gives a plausible time, from 1990 until tomorrow. Unix numbers are told
apart by their size, so a column may mix seconds and milliseconds; a calendar written as a number
(YYMMDDHH, YYYYMMDD, ...) must have real months, days and hours. Where two forms fit equally well
and mean different times, nothing is guessed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ctrkit.core.errors import UsageError
from ctrkit.core.units import format_count, format_value
from ctrkit.ctr.data.workspace import literal

DAY_S = 86_400
EARLIEST_S = 631_152_000  # 1990-01-01
LATEST_TIME_S = 2**31 - 1  # times are kept as int32
#: cells that fit no form by as much are counted as no time; with fewer the column is something else
_LEAST_FITTING_SHARE = 0.5
#: forms that fit almost as many cells as the best are as good
_AS_GOOD_SHARE = 0.99
#: more cells that fit another form only make a mixture, where a cell that fits both may be misread
_MOST_OF_OTHERS_SHARE = 0.01
_LEAST_DISTINCT = 3
#: a time is far from the rest beyond so many times the span of the middle 90 %, and a year at least
_FAR_SPANS = 10
_FAR_LEAST_S = 365 * DAY_S
_EXCEL_EPOCH_DAYS = 25_569  # of 1970-01-01, counted from 1899-12-30

_CLOCKS: tuple[str, ...] = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %H:%M:%S,%f")
_CLOCKS += (" %I:%M %p", " %I:%M:%S %p", "T%H:%M:%S", ", %H:%M", ", %H:%M:%S", ", %I:%M:%S %p")
_ZEROS: tuple[str, ...] = ("0", "-1", "0.0", "-1.0", "0.000000", "00000000", "0000000000")
_NO_DAYS: tuple[str, ...] = (
    "1970-01-01",
    "0000-00-00",
    "0001-01-01",
    "1900-01-00",
    "1900-01-01",
    "9999-12-31",
)
_NO_DAYS += ("1899-12-30", "1899-12-31", "1970/01/01", "01/01/1970", "01.01.1970")
_NUMBER = r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?"
_IS_NUMBER = f"regexp_full_match(time_text, '{_NUMBER}')"


@dataclass(frozen=True)
class Form:
    """A way to write a time.

    Attributes:
        name: as users read it.
        sql: of Unix seconds (DOUBLE) of a text column `time_text`, NULL where it does not fit.
        format: what `--time-format` takes for it, "" for a number that `--time-unit` names.
    """

    name: str
    sql: str
    format: str = ""


def _unit(name: str, per_s: float) -> Form:
    return Form(f"Unix {name}", f"try_cast(time_text AS DOUBLE) / {per_s!r}")


def _digits(name: str, format: str, digits: int) -> Form:
    """A calendar as a number of so many digits; `.0` at its end is that of a floating number."""
    text = r"regexp_replace(time_text, '\.0*$', '')"
    if format.startswith("%y"):  # a number loses the zero of 2005
        text = f"lpad({text}, {digits}, '0')"
    least = digits - format.startswith("%y")
    guard = f"regexp_full_match(time_text, '[0-9]{{{least},{digits}}}(\\.0*)?')"
    return Form(name, f"CASE WHEN {guard} THEN epoch(try_strptime({text}, '{format}')) END", format)


def _texts(name: str, dates: Sequence[str], clocks: Sequence[str] = _CLOCKS) -> Form:
    formats = ", ".join(literal(date + clock) for date in dates for clock in clocks)
    parsed = f"epoch(try_strptime(time_text, [{formats}]))"
    return Form(name, f"CASE WHEN NOT {_IS_NUMBER} THEN {parsed} END", dates[0])


UNIX = (
    _unit("seconds", 1.0),
    _unit("milliseconds", 1e3),
    _unit("microseconds", 1e6),
    _unit("nanoseconds", 1e9),
)
ISO = Form(
    "ISO 8601",
    f"CASE WHEN NOT {_IS_NUMBER} THEN epoch(try_cast(time_text AS TIMESTAMPTZ)) END",
    "%Y-%m-%d %H:%M:%S",
)
EXCEL = Form(
    "days as Excel counts them",
    "CASE WHEN regexp_full_match(time_text, '[0-9]{5}(\\.[0-9]*)?')"
    f" THEN (try_cast(time_text AS DOUBLE) - {_EXCEL_EPOCH_DAYS}) * {DAY_S} END",
)
CALENDARS = (
    _digits("YYYYMMDD", "%Y%m%d", 8),
    _digits("YYYYMMDDHH", "%Y%m%d%H", 10),
    _digits("YYYYMMDDHHMM", "%Y%m%d%H%M", 12),
    _digits("YYYYMMDDHHMMSS", "%Y%m%d%H%M%S", 14),
    _digits("YYMMDD", "%y%m%d", 6),
    _digits("YYMMDDHH", "%y%m%d%H", 8),
    _digits("YYMMDDHHMM", "%y%m%d%H%M", 10),
    _digits("YYMMDDHHMMSS", "%y%m%d%H%M%S", 12),
)
TEXTS = (
    _texts("day/month/year", ("%d/%m/%Y", "%d-%m-%Y", "%d.%m.%Y")),
    _texts("month/day/year", ("%m/%d/%Y", "%m-%d-%Y")),
    _texts("day/month/year of two digits", ("%d/%m/%y", "%d-%m-%y", "%d.%m.%y")),
    _texts("month/day/year of two digits", ("%m/%d/%y", "%m-%d-%y")),
    _texts("year of two digits/month/day", ("%y/%m/%d", "%y-%m-%d", "%y.%m.%d")),
    _texts(
        "year/month/day",
        (
            "%Y-%m-%d",
            "%Y/%m/%d",
            "%Y.%m.%d",
            "%Y%m%d",
            "%Y年%m月%d日",
            "%Y-%m-%d %H",
            "%Y-%m-%d-%H",
        ),
    ),
    _texts("day, month's name, year", ("%d %b %Y", "%d-%b-%Y", "%d %B %Y", "%d/%b/%Y")),
    _texts("day, month's name, year of two digits", ("%d %b %y", "%d-%b-%y", "%d/%b/%y")),
    _texts("month's name, day, year", ("%b %d, %Y", "%B %d, %Y", "%b %d %Y", "%B %d %Y")),
    _texts(
        "a log's or a mail's date",
        (
            "%d/%b/%Y:%H:%M:%S %z",
            "[%d/%b/%Y:%H:%M:%S %z]",
            "%a %b %d %H:%M:%S %z %Y",
            "%a %b %d %H:%M:%S %Y",
            "%a, %d %b %Y %H:%M:%S %z",
            "%a, %d %b %Y %H:%M:%S %Z",
            "%Y%m%dT%H%M%S",
            "%Y%m%dT%H%M%SZ",
            "%Y%m%d-%H%M%S",
            "%Y%m%d_%H%M%S",
            "%a, %d %b %Y",
            "%A, %d %B %Y",
            "%A, %B %d, %Y",
        ),
        ("",),
    ),
)
#: those whose cells never look like one another's: a column may mix them
MIXABLE = (*UNIX, ISO)
FORMS = (*MIXABLE, EXCEL, *CALENDARS, *TEXTS)

_PER_S = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9, "min": 1 / 60, "h": 1 / 3600, "d": 1 / DAY_S}
UNITS = (*_PER_S, "excel")
ACCEPTED = (
    "Unix seconds, ms, us or ns; ISO such as 2017-05-06 10:00; YYYYMMDD[HH[MM[SS]]];"
    " YYMMDD[HH[MM[SS]]]; Excel days; 6/5/2017 10:00; 6 May 2017"
)


@dataclass(frozen=True)
class TimeRule:
    """How a column of times is read.

    Attributes:
        sql: of Unix seconds of the text column `time_text`.
        words: the form, for the user.
        earliest_s: of a usable time.
        latest_s: of a usable time.
        outside: what a time beyond them is.
        zero_is_missing: True where 0 and 1970 stand for no time.
    """

    sql: str
    words: str
    earliest_s: float
    latest_s: float
    outside: str
    zero_is_missing: bool


def said_rule(*, format: str | None = None, unit: str | None = None) -> TimeRule | None:
    """The rule that the user says; None if neither is said.

    Raises:
        UsageError: both are said, or it is unknown.
    """
    if format is not None and unit is not None:
        raise UsageError("--time-format and --time-unit exclude each other: say one")
    if unit is not None:
        if unit not in UNITS:
            raise UsageError(f"--time-unit {unit}: unknown; choose {', '.join(UNITS)}")
        number = "try_cast(time_text AS DOUBLE)"
        sql = (
            f"({number} - {_EXCEL_EPOCH_DAYS}) * {DAY_S}"
            if unit == "excel"
            else f"{number} / {_PER_S[unit]!r}"
        )
        return _said(sql, f"--time-unit {unit}")
    if format is None:
        return None
    named = next((form for form in CALENDARS if form.name == format.upper()), None)
    if named is not None:
        return _said(named.sql, named.name)
    if "%" not in format:
        raise UsageError(
            f"--time-format {format}: unknown; for example '%d/%m/%Y %H:%M', or one of"
            f" {', '.join(form.name for form in CALENDARS)}"
        )
    # a date alone finds the times of day after it, too
    clocks = _CLOCKS if not re.search("%[HIcXT]", format) else ("",)
    formats = ", ".join(literal(format + clock) for clock in clocks)
    return _said(f"epoch(try_strptime(time_text, [{formats}]))", f"--time-format {format}")


def _said(sql: str, words: str) -> TimeRule:
    return TimeRule(sql, words, 0, LATEST_TIME_S, "is before 1970 or after 2038", False)


def missing_sql() -> str:
    """SQL: a cell `time_text` that stands for no time, such as 0 or 1970-01-01."""
    zeros = ", ".join(literal(text) for text in _ZEROS)
    days = ", ".join(literal(text) for text in _NO_DAYS)
    return f"(time_text IN ({zeros}) OR left(time_text, 10) IN ({days}))"


def rounded_sql() -> str:
    """SQL: a cell `time_text` whose last digits were left out, such as 1.494e+09."""
    digits = r"length(regexp_extract(time_text, '\.([0-9]*)[eE]', 1))"
    power = r"try_cast(regexp_extract(time_text, '[eE]\+?([0-9]+)$', 1) AS INTEGER)"
    return (
        f"CASE WHEN contains(time_text, 'e') OR contains(time_text, 'E') THEN {_IS_NUMBER}"
        f" AND coalesce({digits} < {power}, false) AND {digits} < 9 ELSE false END"
    )


def latest_plausible_s(now_s: float) -> float:
    """Until when a time is plausible: tomorrow."""
    return now_s + DAY_S


def fit_sql(form: Form, latest_s: float) -> str:
    """SQL: the cell `time_text` fits a form."""
    return f"coalesce(({form.sql}) BETWEEN {EARLIEST_S} AND {latest_s!r}, false)"


def choose_rule(
    where: str,
    column: str,
    fitting: Mapping[str, int],
    *,
    cells: int,
    fitting_any: int,
    distinct: int,
    sample: str,
    now_s: float,
) -> TimeRule:
    """The rule for a column from how many of its cells fit each form.

    Args:
        where: the file, for messages.
        column: its name.
        fitting: cells per name of a form; a form without any may be left out.
        cells: those that are not missing.
        fitting_any: those that fit one form or more.
        distinct: different texts among them.
        sample: the commonest or any other of them.
        now_s: Unix time.

    Raises:
        UsageError: no form fits, or two do that mean different times, or the column mixes forms
            that can be taken for one another; with a sample.
    """
    mixed = {form.name: fitting.get(form.name, 0) for form in MIXABLE}
    others = {
        form: fitting[form.name] for form in FORMS if form not in MIXABLE and fitting.get(form.name)
    }
    best = max([sum(mixed.values()), *others.values()])
    if best < _LEAST_FITTING_SHARE * cells or not best:
        raise UsageError(_refusal(where, column, sample, now_s))
    latest_s = latest_plausible_s(now_s)
    good = [form for form, count in others.items() if count >= _AS_GOOD_SHARE * best]
    if sum(mixed.values()) >= _AS_GOOD_SHARE * best:
        # a Unix time has a real month, day, hour and minute by chance only
        by_chance = mixed[ISO.name] == 0 and good and distinct >= _LEAST_DISTINCT
        if not by_chance:
            return _mixed_rule(mixed, latest_s)
    if fitting_any - best > _MOST_OF_OTHERS_SHARE * cells:
        raise UsageError(_mixture(where, column, others, cells))
    if best == cells:  # what fits all is right where another form does not
        good = [form for form in good if others[form] == best] or good
    if len(good) > 1:
        raise UsageError(
            f"{where}: column {format_value(column)}: {format_value(sample)} may be"
            f" {' or '.join(form.name for form in good)}, and no value decides it; say"
            f" {' or '.join(f'--time-format {_option(form, sample)}' for form in good)}"
        )
    return _plausible(good[0].sql, good[0].name, latest_s)


def _mixture(where: str, column: str, fitting: Mapping[Form, int], cells: int) -> str:
    most = sorted(fitting.items(), key=lambda pair: -pair[1])[:2]
    forms = " and ".join(f"{format_count(count)} as {form.name}" for form, count in most)
    return (
        f"{where}: column {format_value(column)} mixes forms: of {format_count(cells)} cells"
        f" {forms} can be read; write them in one form first, or say with --time-format which"
        " ones to use"
    )


def _option(form: Form, sample: str) -> str:
    """What `--time-format` takes for a form, with the delimiter of a sample."""
    if form in CALENDARS:
        return form.name
    delimiter = re.search(r"[^0-9]", sample)
    return f"'{form.format.replace('/', delimiter[0] if delimiter else '/')}'"


def _mixed_rule(mixed: Mapping[str, int], latest_s: float) -> TimeRule:
    forms = [form for form in MIXABLE if mixed[form.name]]
    cases = " ".join(f"WHEN {fit_sql(form, latest_s)} THEN {form.sql}" for form in forms)
    counts = [f"{format_count(mixed[form.name])} as {form.name}" for form in forms]
    words = forms[0].name if len(forms) == 1 else f"mixed: {', '.join(counts)}"
    # what fits none is still a time if it is a number or a date, but an implausible one
    fallback = f"coalesce({', '.join(form.sql for form in forms)})"
    return _plausible(f"CASE {cases} ELSE {fallback} END", words, latest_s)


def _plausible(sql: str, words: str, latest_s: float) -> TimeRule:
    return TimeRule(
        sql,
        words,
        EARLIEST_S,
        min(latest_s, LATEST_TIME_S),
        "is before 1990 or in the future",
        True,
    )


def _refusal(where: str, column: str, sample: str, now_s: float) -> str:
    """Why no form fits, with what the sample would be as a Unix time."""
    as_unix = ""
    if re.fullmatch(_NUMBER, sample):
        number = float(sample)
        when = as_date(number)
        as_unix = f" (as Unix seconds it would be {when})" if when else ""
    latest = as_date(latest_plausible_s(now_s))
    return (
        f"{where}: column {format_value(column)} holds {format_value(sample)}{as_unix}, which is no"
        f" time between 1990 and {latest} in any form we know: {ACCEPTED}; say the form outright"
        " with --time-format, or with --time-unit what numbers count"
    )


def as_date(time_s: float) -> str:
    """`2014-10-21` of Unix seconds, "" where there is no such date."""
    try:
        return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d")
    except (ValueError, OverflowError, OSError):
        return ""


def near_range(low_s: float, high_s: float) -> tuple[float, float]:
    """From when until when a time is not far from the rest, by the 5 % and 95 % quantiles."""
    margin_s = max(_FAR_LEAST_S, _FAR_SPANS * (high_s - low_s))
    return math.floor(low_s - margin_s), math.ceil(high_s + margin_s)
