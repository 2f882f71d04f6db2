"""The forms in which tables write times, each as SQL on the text column `time_text`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ctrkit.ctr.data.ingest import DAY_S
from ctrkit.ctr.data.workspace import literal

EARLIEST_S = 631_152_000  # 1990-01-01; earlier times are implausible
EXCEL_EPOCH_DAYS = 25_569  # of 1970-01-01, counted from 1899-12-30
#: pattern of a number
NUMBER = r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?"
_IS_NUMBER = f"regexp_full_match(time_text, '{NUMBER}')"
#: formats of the time of day after a date
CLOCKS: tuple[str, ...] = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %H:%M:%S,%f")
CLOCKS += (" %I:%M %p", " %I:%M:%S %p", "T%H:%M:%S", ", %H:%M", ", %H:%M:%S", ", %I:%M:%S %p")
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


@dataclass(frozen=True)
class Form:
    """A way to write a time.

    Attributes:
        name: its name for users.
        sql: SQL for Unix seconds (DOUBLE) of the text column `time_text`, NULL if it does not fit.
        format: its value for `--time-format`; "" for a number that `--time-unit` names.
    """

    name: str
    sql: str
    format: str = ""


def _unit(name: str, per_s: float) -> Form:
    return Form(f"Unix {name}", f"try_cast(time_text AS DOUBLE) / {per_s!r}")


def _digits(name: str, format: str, digits: int) -> Form:
    """A calendar date as a number with so many digits; a trailing `.0` comes from floats."""
    text = r"regexp_replace(time_text, '\.0*$', '')"
    # as a number, it loses the zero of 05 (the year 2005, or May)
    loses_zero = not format.startswith("%Y")
    if loses_zero:
        text = f"lpad({text}, {digits}, '0')"
    least = digits - loses_zero
    guard = f"regexp_full_match(time_text, '[0-9]{{{least},{digits}}}(\\.0*)?')"
    return Form(name, f"CASE WHEN {guard} THEN epoch(try_strptime({text}, '{format}')) END", format)


def _texts(name: str, dates: Sequence[str], clocks: Sequence[str] = CLOCKS) -> Form:
    formats = ", ".join(literal(date + clock) for date in dates for clock in clocks)
    parsed = f"epoch(try_strptime(time_text, [{formats}]))"
    return Form(name, f"CASE WHEN NOT {_IS_NUMBER} THEN {parsed} END", dates[0])


UNIX = (
    _unit("seconds", 1.0),
    _unit("milliseconds", 1e3),
    _unit("microseconds", 1e6),
    # ticks of .NET, 100 ns since the year 1, would all be Unix nanoseconds of 1990
    Form(
        "Unix nanoseconds",
        "CASE WHEN try_cast(time_text AS DOUBLE) NOT BETWEEN 6.2e17 AND 6.5e17"
        " THEN try_cast(time_text AS DOUBLE) / 1e9 END",
    ),
)
# `10:00:00 -0500`, as git and Ruby write it, and `10:00:00 UTC`, as ISO has them
_WITH_OFFSET = r"""regexp_replace(
    regexp_replace(time_text, '(:[0-9]{2}(?:\.[0-9]+)?) ?([+-][0-9]{2}):?([0-9]{2})$', '\1\2:\3'),
    '(:[0-9]{2}(?:\.[0-9]+)?) ?(?:UTC|GMT)$', '\1Z')"""
ISO = Form(
    "ISO 8601",
    f"CASE WHEN NOT {_IS_NUMBER} THEN epoch(try_cast({_WITH_OFFSET} AS TIMESTAMPTZ)) END",
    "%Y-%m-%d %H:%M:%S",
)
EXCEL = Form(
    "days as Excel counts them",
    "CASE WHEN regexp_full_match(time_text, '[0-9]{5}(\\.[0-9]*)?')"
    # rounded, since 16:04:38 is no exact share of a day
    f" THEN round((try_cast(time_text AS DOUBLE) - {EXCEL_EPOCH_DAYS}) * {DAY_S}) END",
)
CALENDARS = (
    _digits("YYYYMMDD", "%Y%m%d", 8),
    _digits("DDMMYYYY", "%d%m%Y", 8),
    _digits("MMDDYYYY", "%m%d%Y", 8),
    _digits("YYYYMM", "%Y%m", 6),
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
#: forms that never look like each other, so a column may mix them
MIXABLE = (*UNIX, ISO)
FORMS = (*MIXABLE, EXCEL, *CALENDARS, *TEXTS)


def reordered(form: Form, order: str) -> Form:
    """A calendar that begins with YYMMDD, in another order of day, month and year."""
    rest = form.format.removeprefix("%y%m%d")
    name = order.upper().replace("%", "")
    name = "".join(letter * 2 for letter in name) + form.name.removeprefix("YYMMDD")
    return _digits(name, order + rest, len(form.name))


def missing_sql() -> str:
    """SQL test: the cell `time_text` means "no time", such as 0 or 1970-01-01."""
    zeros = ", ".join(literal(text) for text in _ZEROS)
    days = ", ".join(literal(text) for text in _NO_DAYS)
    return f"(time_text IN ({zeros}) OR left(time_text, 10) IN ({days}))"


def rounded_sql() -> str:
    """SQL test: the cell `time_text` has lost its last digits, such as 1.494e+09."""
    digits = r"length(regexp_extract(time_text, '\.([0-9]*)[eE]', 1))"
    power = r"try_cast(regexp_extract(time_text, '[eE]\+?([0-9]+)$', 1) AS INTEGER)"
    return (
        f"CASE WHEN contains(time_text, 'e') OR contains(time_text, 'E') THEN {_IS_NUMBER}"
        f" AND coalesce({digits} < {power}, false) AND {digits} < 9 ELSE false END"
    )


def latest_plausible_s(now_s: float) -> float:
    """The latest plausible time: tomorrow."""
    return now_s + DAY_S


def fit_sql(form: Form, latest_s: float) -> str:
    """SQL test: the cell `time_text` fits a form."""
    return f"coalesce(({form.sql}) BETWEEN {EARLIEST_S} AND {latest_s!r}, false)"
