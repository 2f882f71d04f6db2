"""Decides in which form a column writes times, by how many of its cells fit each form.

A cell fits a form if it gives a plausible time, from 1990 until tomorrow. Unix times in different
units differ in size, so a column may mix seconds and milliseconds. A calendar date written as a
number (YYMMDDHH, YYYYMMDD, ...) must have a real month, day and hour. If two forms fit equally well
and mean different times, nothing is guessed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ctrkit.core.errors import UsageError
from ctrkit.core.units import format_count, format_value
from ctrkit.ctr.data.ingest import DAY_S, LATEST_TIME_S
from ctrkit.ctr.data.tables.time_forms import (
    CALENDARS,
    CLOCKS,
    EARLIEST_S,
    EXCEL_EPOCH_DAYS,
    FORMS,
    ISO,
    MIXABLE,
    NUMBER,
    UNIX,
    Form,
    fit_sql,
    latest_plausible_s,
    reordered,
)
from ctrkit.ctr.data.workspace import literal

#: least share of cells that fit a form; with a smaller share the column is something else
_LEAST_FITTING_SHARE = 0.5
#: a form that fits this share of the best form's cells is as good
_AS_GOOD_SHARE = 0.99
#: If more cells than this fit another form only, the column is a mixture, in which a cell that fits
#: both may be misread.
_MOST_OF_OTHERS_SHARE = 0.01
_LEAST_DISTINCT = 3
#: a time is far from the rest beyond so many times the span of the middle 90 %, at least a year
_FAR_SPANS = 10
_FAR_LEAST_S = 365 * DAY_S

#: another order of digits is likelier if its times span so many times less
_CLOSER = 10

#: letters that may follow % in `--time-format`
_FORMAT_LETTERS = tuple("aAwudjHMmnyYbBIpSfgzZUWGVcxX%")
UNIX_UNITS = dict(zip(("s", "ms", "us", "ns"), UNIX, strict=True))
_PER_S = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9, "min": 1 / 60, "h": 1 / 3600, "d": 1 / DAY_S}
UNITS = (*_PER_S, "excel")
ACCEPTED = (
    "Unix seconds, ms, us or ns; ISO such as 2017-05-06 10:00; YYYYMMDD[HH[MM[SS]]];"
    " DDMMYYYY; MMDDYYYY; YYYYMM; YYMMDD[HH[MM[SS]]]; Excel days; 6/5/2017 10:00; 6 May 2017"
)


@dataclass(frozen=True)
class TimeRule:
    """How to read a column of times.

    Attributes:
        sql: SQL for Unix seconds of the text column `time_text`.
        words: the form, for the user.
        earliest_s: earliest usable time.
        latest_s: latest usable time.
        outside: words for a time beyond them.
        zero_is_missing: whether 0 and 1970 mean "no time".
    """

    sql: str
    words: str
    earliest_s: float
    latest_s: float
    outside: str
    zero_is_missing: bool

    @property
    def is_said(self) -> bool:
        """Whether the user chose the rule."""
        return not self.zero_is_missing


def said_rule(*, format: str | None = None, unit: str | None = None) -> TimeRule | None:
    """The user's rule; None if there is none.

    Raises:
        UsageError: both are given, or it is unknown.
    """
    if format is not None and unit is not None:
        raise UsageError("--time-format and --time-unit exclude each other: say one")
    if unit is not None:
        if unit not in UNITS:
            raise UsageError(f"--time-unit {unit}: unknown; choose {', '.join(UNITS)}")
        return unit_rule(unit)
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
    unknown = [part for part in re.findall("%-?(.?)", format) if part not in _FORMAT_LETTERS]
    if unknown:
        raise UsageError(
            f"--time-format {format}: %{unknown[0]} is no part of a format; write for example"
            " '%d/%m/%Y %H:%M'"
        )
    # a format of only a date also matches a time of day after it
    clocks = CLOCKS if not re.search("%[HIcXT]", format) else ("",)
    formats = ", ".join(literal(format + clock) for clock in clocks)
    return _said(f"epoch(try_strptime(time_text, [{formats}]))", f"--time-format {format}")


def unit_rule(unit: str) -> TimeRule:
    """The rule for numbers in a unit since 1970, or in days as Excel counts them."""
    number = "try_cast(time_text AS DOUBLE)"
    if unit == "excel":
        return _said(f"round(({number} - {EXCEL_EPOCH_DAYS}) * {DAY_S})", "--time-unit excel")
    return _said(f"{number} / {_PER_S[unit]!r}", f"--time-unit {unit}")


def other_unit(
    where: str,
    column: str,
    unit: str,
    fitting: Mapping[str, int],
    *,
    cells: int,
    distinct: int,
    sample: str,
) -> UsageError | None:
    """The error for a unit that gives no plausible times, if another form does.

    Args:
        where: the file, for messages.
        column: its name.
        unit: the user's unit.
        fitting: number of cells per form name, as in `choose_rule`.
        cells: number of non-missing cells.
        distinct: number of different texts among them.
        sample: any of them.
    """
    said = UNIX_UNITS.get(unit)
    if said is None or fitting[said.name] >= _LEAST_FITTING_SHARE * cells:
        return None
    least = _AS_GOOD_SHARE * cells
    forms = (*UNIX, *(CALENDARS if distinct >= _LEAST_DISTINCT else ()))
    other = next((form for form in forms if fitting[form.name] >= least), None)
    if other is None or not re.fullmatch(NUMBER, sample):
        return None  # the column may count steps or hours of the user's own
    units = {form: name for name, form in UNIX_UNITS.items()}
    option = f"--time-unit {units[other]}" if other in units else f"--time-format {other.name}"
    when = as_date(float(sample) / _PER_S[unit]) or "no date"
    return UsageError(
        f"{where}: --time-unit {unit} makes {when} of {format_value(sample)} in column"
        f" {format_value(column)}, which reads as {other.name}; say {option}"
    )


def _said(sql: str, words: str) -> TimeRule:
    return TimeRule(sql, words, 0, LATEST_TIME_S, "is before 1970 or after 2038", False)


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
    hints: Callable[[], Sequence[str]] = tuple,
) -> TimeRule:
    """Choose the rule for a column by how many of its cells fit each form.

    Args:
        where: the file, for messages.
        column: its name.
        fitting: number of cells per form name; forms without any may be left out.
        cells: number of non-missing cells.
        fitting_any: number of cells that fit at least one form.
        distinct: number of different texts among them.
        sample: one of them, preferably the commonest.
        now_s: Unix time.
        hints: called if no form fits: options that fit.

    Raises:
        UsageError: no form fits, two forms fit that mean different times, or the column mixes forms
            that can be confused; the message shows a sample.
    """
    mixed = {form.name: fitting.get(form.name, 0) for form in MIXABLE}
    others = {
        form: fitting[form.name] for form in FORMS if form not in MIXABLE and fitting.get(form.name)
    }
    best = max([sum(mixed.values()), *others.values()])
    if best < _LEAST_FITTING_SHARE * cells or not best:
        raise UsageError(_refusal(where, column, sample, now_s, hints()))
    latest_s = latest_plausible_s(now_s)
    good = [form for form, count in others.items() if count >= _AS_GOOD_SHARE * best]
    if sum(mixed.values()) >= _AS_GOOD_SHARE * best:
        # a Unix time can have a real month, day, hour and minute only by chance
        by_chance = mixed[ISO.name] == 0 and good and distinct >= _LEAST_DISTINCT
        if not by_chance:
            return _mixed_rule(mixed, latest_s)
    if fitting_any - best > _MOST_OF_OTHERS_SHARE * cells:
        raise UsageError(_mixture(where, column, others, cells))
    if best == cells:  # a form that fits all cells is right if another form does not
        good = [form for form in good if others[form] == best] or good
    if len(good) > 1:
        raise UsageError(_ambiguity(where, column, good, sample))
    return _plausible(good[0].sql, good[0].name, latest_s)


def check_digit_order(
    where: str,
    column: str,
    rule: TimeRule,
    spans: Callable[[Sequence[str]], Sequence[tuple[int, float]]],
    sample: str,
) -> None:
    """Check that a column read as YYMMDD... is not DDMMYY... or MMDDYY...

    A log's times are close together. Read in the wrong order, the days of a month become years.

    Args:
        where: the file, for messages.
        column: its name.
        rule: the rule that was chosen.
        spans: the number of plausible times and their span in seconds, for the SQL of each form.
        sample: one of the cells.

    Raises:
        UsageError: another order fits as many cells, in a tenth of the time.
    """
    chosen = next((form for form in CALENDARS if form.sql == rule.sql), None)
    if chosen is None or not chosen.format.startswith("%y"):
        return
    rivals = [reordered(chosen, order) for order in ("%d%m%y", "%m%d%y")]
    (count, span_s), *others = spans([form.sql for form in (chosen, *rivals)])
    closer = [
        form
        for form, (other_count, other_s) in zip(rivals, others, strict=True)
        if other_count >= _AS_GOOD_SHARE * count and other_s * _CLOSER < span_s
    ]
    if closer:
        raise UsageError(
            f"{where}: column {format_value(column)}: {format_value(sample)} may be"
            f" {closer[0].name} as well as {chosen.name}, whose times would span"
            f" {format_count(round(span_s / DAY_S))} days; say --time-format"
            f" {closer[0].format} or --time-format {chosen.name}"
        )


def _ambiguity(where: str, column: str, forms: Sequence[Form], sample: str) -> str:
    return (
        f"{where}: column {format_value(column)}: {format_value(sample)} may be"
        f" {' or '.join(form.name for form in forms)}, and no value decides it; say"
        f" {' or '.join(f'--time-format {_option(form, sample)}' for form in forms)}"
    )


def _mixture(where: str, column: str, fitting: Mapping[Form, int], cells: int) -> str:
    most = sorted(fitting.items(), key=lambda pair: -pair[1])[:2]
    forms = " and ".join(f"{format_count(count)} as {form.name}" for form, count in most)
    return (
        f"{where}: column {format_value(column)} mixes forms: of {format_count(cells)} cells"
        f" {forms} can be read; write them in one form first, or say with --time-format which"
        " ones to use"
    )


def _option(form: Form, sample: str) -> str:
    """The value of `--time-format` for a form, with the delimiter of a sample."""
    if form in CALENDARS:
        return form.name
    delimiter = re.search(r"[^0-9]", sample)
    return f"'{form.format.replace('/', delimiter[0] if delimiter else '/')}'"


def _mixed_rule(mixed: Mapping[str, int], latest_s: float) -> TimeRule:
    forms = [form for form in MIXABLE if mixed[form.name]]
    cases = " ".join(f"WHEN {fit_sql(form, latest_s)} THEN {form.sql}" for form in forms)
    counts = [f"{format_count(mixed[form.name])} as {form.name}" for form in forms]
    words = forms[0].name if len(forms) == 1 else f"mixed: {', '.join(counts)}"
    # a cell that fits no form is an implausible time if it is a number or a date
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


def _refusal(where: str, column: str, sample: str, now_s: float, hints: Sequence[str]) -> str:
    """Why no form fits, with the sample as a Unix time, or an option that fits."""
    if hints:
        return (
            f"{where}: column {format_value(column)} holds {format_value(sample)}, which is read as"
            f" a time only if you say how; {' or '.join(hints)} fit{'s' * (len(hints) == 1)} its"
            " values"
        )
    as_unix = ""
    if re.fullmatch(NUMBER, sample):
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
    """Unix seconds as `2014-10-21`; "" if there is no such date."""
    try:
        return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d")
    except (ValueError, OverflowError, OSError):
        return ""


def near_range(low_s: float, high_s: float) -> tuple[float, float]:
    """The range of times not far from the rest, from the 5 % and 95 % quantiles."""
    margin_s = max(_FAR_LEAST_S, _FAR_SPANS * (high_s - low_s))
    return math.floor(low_s - margin_s), math.ceil(high_s + margin_s)
