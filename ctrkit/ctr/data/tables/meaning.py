"""Decides what the cells of a column mean, from the whole column and not from its first rows."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ctrkit.core.errors import UsageError
from ctrkit.core.units import format_value
from ctrkit.ctr.data.ingest import LATEST_TIME_S
from ctrkit.ctr.data.tables import ids, labels, time_forms, times
from ctrkit.ctr.data.tables.doubts import find_doubts
from ctrkit.ctr.data.tables.labels import LabelRule
from ctrkit.ctr.data.tables.numbers import rewrite_numbers
from ctrkit.ctr.data.tables.reading import Source
from ctrkit.ctr.data.tables.time_hints import fitting_options
from ctrkit.ctr.data.tables.times import TimeRule
from ctrkit.ctr.data.workspace import Workspace

_SAMPLE_ROWS = 20_000
_QUANTILE_ROWS = 1_000_000
_ANY = "any form"


@dataclass(frozen=True, kw_only=True)
class MeaningOptions:
    """The user's options on the meaning of cells; None for what is to be detected.

    Attributes:
        time_format: a strptime format, or the name of a calendar such as YYMMDDHH.
        time_unit: one of `times.UNITS`.
        label_threshold: a label of at least this is positive.
        positive: labels that are positive.
        now_s: Unix time; later times are implausible.
    """

    time_format: str | None = None
    time_unit: str | None = None
    label_threshold: float | None = None
    positive: tuple[str, ...] | None = None
    now_s: float = field(default_factory=time.time)

    def check(self) -> None:
        """Check the options against each other.

        Raises:
            UsageError: two exclude each other, or one is unknown.
        """
        times.said_rule(format=self.time_format, unit=self.time_unit)
        if self.label_threshold is not None and self.positive is not None:
            raise UsageError("--label-threshold and --positive exclude each other: say one")
        if self.label_threshold is not None and not math.isfinite(self.label_threshold):
            raise UsageError(f"--label-threshold {self.label_threshold}: must be a finite number")


@dataclass(frozen=True)
class Meaning:
    """How to understand the cells of a table."""

    time: TimeRule
    label: LabelRule
    near_s: tuple[float, float]
    warnings: tuple[str, ...]
    spellings: tuple[str, ...] = ()

    def notes(self, asked: Mapping[str, str]) -> list[str]:
        """How times and labels are understood, in words."""
        return [
            f"column {format_value(asked['time'])} is read as {self.time.words}",
            *self.spellings,
            f"a row is positive where {self.label.words}",
        ]


def find_meaning(space: Workspace, source: Source, options: MeaningOptions) -> Meaning:
    """Decide the meaning from the table `cells`.

    Raises:
        UsageError: the times or the labels cannot be understood; the message shows a sample.
    """
    rule = times.said_rule(format=options.time_format, unit=options.time_unit)
    spellings = rewrite_numbers(space, source, labels=options.positive is None)
    if rule is None:
        rule = _time_rule(space, source, options.now_s)
    else:
        _check_said(space, source, rule, options)
    return Meaning(
        rule,
        _label_rule(space, source, options),
        _near(space, rule),
        tuple(find_doubts(space, source, rule)),
        tuple(spellings),
    )


def _time_cells(zero_is_missing: bool, *, every: int = 1) -> str:
    """SQL after FROM: every n-th row whose cell `time_text` is a time."""
    missing = ids.missing_sql("time_text")
    missing += f" OR {time_forms.missing_sql()}" if zero_is_missing else ""
    chosen = f" AND hash(file, place) % {every} = 0" if every > 1 else ""
    return f"cells WHERE flaw = 0{chosen} AND NOT coalesce({missing}, true)"


def _time_rule(space: Workspace, source: Source, now_s: float) -> TimeRule:
    there = _time_cells(zero_is_missing=True)
    cells = int(space.value(f"SELECT count(*) FROM {there}"))
    if not cells:
        return times.unit_rule("s")  # there is no time, so any rule will do
    latest_s = time_forms.latest_plausible_s(now_s)
    sample = _time_cells(zero_is_missing=True, every=max(1, cells // _SAMPLE_ROWS))
    sampled = _fitting(space, time_forms.FORMS, latest_s, sample)
    likely = [form for form in time_forms.FORMS if form in time_forms.MIXABLE or sampled[form.name]]
    fitting = _fitting(space, likely, latest_s, there)
    where, column = str(source.files.named), source.asked["time"]
    first = space.value(f"SELECT arg_min(time_text, (file, place)) FROM {there}")
    rule = times.choose_rule(
        where,
        column,
        fitting,
        cells=cells,
        fitting_any=fitting.pop(_ANY),
        distinct=_distinct(space, there),
        sample=first,
        now_s=now_s,
        hints=lambda: fitting_options(space, sample, latest_s),
    )

    def spans(forms: Sequence[str]) -> list[tuple[int, float]]:
        plausible = f"BETWEEN {time_forms.EARLIEST_S} AND {latest_s!r}"
        found = [
            f"count(*) FILTER (({sql}) {plausible}), max({sql}) FILTER (({sql}) {plausible})"
            f" - min({sql}) FILTER (({sql}) {plausible})"
            for sql in forms
        ]
        row = space.rows(f"SELECT {', '.join(found)} FROM {sample}")[0]
        return [(int(n), float(s or 0)) for n, s in zip(row[::2], row[1::2], strict=True)]

    times.check_digit_order(where, column, rule, spans, first)
    return rule


def _fitting(
    space: Workspace, forms: Sequence[time_forms.Form], latest_s: float, cells: str
) -> dict[str, int]:
    """The number of cells that fit each form, and that fit any form."""
    tests = {form.name: time_forms.fit_sql(form, latest_s) for form in forms}
    tests[_ANY] = " OR ".join(tests.values())
    counts = ", ".join(f"count(*) FILTER ({test})" for test in tests.values())
    found = space.rows(f"SELECT {counts} FROM {cells}")[0]
    return dict(zip(tests, map(int, found), strict=True))


def _check_said(space: Workspace, source: Source, rule: TimeRule, options: MeaningOptions) -> None:
    """Check that some cell is a time in the user's form, and not in another unit."""
    there = _time_cells(zero_is_missing=False)
    cells, fitting, sample = space.rows(
        f"SELECT count(*), count({rule.sql}), arg_min(time_text, (file, place)) FROM {there}"
    )[0]
    if cells and not fitting:
        raise UsageError(
            f"{source.files.named}: {rule.words} does not fit column"
            f" {format_value(source.asked['time'])}, which holds {format_value(sample)}"
        )
    if cells and options.time_unit in times.UNIX_UNITS:
        forms = (*time_forms.UNIX, *time_forms.CALENDARS)
        latest_s = time_forms.latest_plausible_s(options.now_s)
        error = times.other_unit(
            str(source.files.named),
            source.asked["time"],
            options.time_unit,
            _fitting(space, forms, latest_s, there),
            cells=cells,
            distinct=_distinct(space, there),
            sample=sample,
        )
        if error is not None:
            raise error


def _distinct(space: Workspace, cells: str) -> int:
    """The number of different times, counted up to 3."""
    distinct = f"SELECT DISTINCT time_text FROM {cells} LIMIT 3"
    return int(space.value(f"SELECT count(*) FROM ({distinct})"))


def _near(space: Workspace, rule: TimeRule) -> tuple[float, float]:
    """The range of times that are not far from the rest."""
    usable = f"time_s BETWEEN {rule.earliest_s!r} AND {rule.latest_s!r}"
    seconds = f"SELECT {rule.sql} AS time_s FROM {_time_cells(rule.zero_is_missing)}"
    count = int(space.value(f"SELECT count(*) FROM ({seconds}) WHERE {usable}"))
    cells = _time_cells(rule.zero_is_missing, every=max(1, count // _QUANTILE_ROWS))
    low, high = space.rows(
        "SELECT quantile_disc(time_s, 0.05), quantile_disc(time_s, 0.95)"
        f" FROM (SELECT {rule.sql} AS time_s FROM {cells}) WHERE {usable}"
    )[0]
    return (0.0, float(LATEST_TIME_S)) if low is None else times.near_range(low, high)


def _label_rule(space: Workspace, source: Source, options: MeaningOptions) -> LabelRule:
    label = ids.id_sql("label_text", dashes=False)
    values = space.rows(
        f"SELECT {label} AS text, count(*) FROM cells WHERE flaw = 0"
        " GROUP BY text HAVING text IS NOT NULL ORDER BY count(*) DESC, text"
        f" LIMIT {labels.MOST_VALUES}"
    )
    return labels.choose_rule(
        str(source.files.named),
        source.asked["label"],
        values,
        threshold=options.label_threshold,
        positive=options.positive,
    )
