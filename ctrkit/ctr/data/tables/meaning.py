"""What the cells of a table mean, decided from all of a column, not from its head."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ctrkit.core.errors import UsageError
from ctrkit.core.units import format_count, format_value
from ctrkit.ctr.data.tables import ids, labels, times
from ctrkit.ctr.data.tables.labels import LabelRule
from ctrkit.ctr.data.tables.parquet import exact_limit
from ctrkit.ctr.data.tables.reading import FIELDS, ParquetPart, Source
from ctrkit.ctr.data.tables.times import TimeRule
from ctrkit.ctr.data.workspace import Workspace

_SAMPLE_ROWS = 20_000
_QUANTILE_ROWS = 1_000_000
_ANY = "any form"


@dataclass(frozen=True, kw_only=True)
class MeaningOptions:
    """What the user says of the cells; None where it is to be found out.

    Attributes:
        time_format: a format of strptime, or the name of a calendar such as YYMMDDHH.
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


@dataclass(frozen=True)
class Meaning:
    """How the cells of a table are understood."""

    time: TimeRule
    label: LabelRule
    near_s: tuple[float, float]
    warnings: tuple[str, ...]

    def notes(self, asked: Mapping[str, str]) -> list[str]:
        """How times and labels are understood, in words."""
        return [
            f"column {format_value(asked['time'])} is read as {self.time.words}",
            f"a row is positive where {self.label.words}",
        ]


def find_meaning(space: Workspace, source: Source, options: MeaningOptions) -> Meaning:
    """Decide from the table `cells`.

    Raises:
        UsageError: the times or the labels cannot be understood; with a sample.
    """
    rule = times.said_rule(format=options.time_format, unit=options.time_unit)
    if rule is None:
        rule = _time_rule(space, source, options.now_s)
    else:
        _check_said(space, source, rule)
    return Meaning(
        rule,
        _label_rule(space, source, options),
        _near(space, rule),
        tuple(_warnings(space, source)),
    )


def _time_cells(zero_is_missing: bool) -> str:
    """SQL after FROM: rows whose cell `time_text` stands for a time."""
    zero = f" OR {times.missing_sql()}" if zero_is_missing else ""
    return f"cells WHERE flaw = 0 AND NOT coalesce({ids.missing_sql('time_text')}{zero}, true)"


def _time_rule(space: Workspace, source: Source, now_s: float) -> TimeRule:
    there = _time_cells(zero_is_missing=True)
    cells = int(space.value(f"SELECT count(*) FROM {there}"))
    if not cells:
        return times.said_rule(unit="s") or times.TimeRule("NULL", "", 0, 0, "", False)
    latest_s = times.latest_plausible_s(now_s)
    every = max(1, cells // _SAMPLE_ROWS)
    sampled = _fitting(
        space,
        times.FORMS,
        latest_s,
        f"(FROM cells WHERE hash(file, place) % {every} = 0) {there[6:]}",
    )
    likely = [form for form in times.FORMS if form in times.MIXABLE or sampled[form.name]]
    fitting = _fitting(space, likely, latest_s, there)
    distinct = f"SELECT count(*) FROM (SELECT DISTINCT time_text FROM {there} LIMIT 3)"
    return times.choose_rule(
        str(source.files.named),
        source.asked["time"],
        fitting,
        cells=cells,
        fitting_any=fitting.pop(_ANY),
        distinct=int(space.value(distinct)),
        sample=space.value(f"SELECT arg_min(time_text, (file, place)) FROM {there}"),
        now_s=now_s,
    )


def _fitting(
    space: Workspace, forms: Sequence[times.Form], latest_s: float, cells: str
) -> dict[str, int]:
    """How many cells fit each form, and how many fit one or more."""
    tests = {form.name: times.fit_sql(form, latest_s) for form in forms}
    tests[_ANY] = " OR ".join(tests.values())
    counts = ", ".join(f"count(*) FILTER ({test})" for test in tests.values())
    found = space.rows(f"SELECT {counts} FROM {cells}")[0]
    return dict(zip(tests, map(int, found), strict=True))


def _check_said(space: Workspace, source: Source, rule: TimeRule) -> None:
    """Check that some cell is a time in the form that the user says."""
    there = _time_cells(zero_is_missing=False)
    cells, fitting, sample = space.rows(
        f"SELECT count(*), count({rule.sql}), arg_min(time_text, (file, place)) FROM {there}"
    )[0]
    if cells and not fitting:
        raise UsageError(
            f"{source.files.named}: {rule.words} does not fit column"
            f" {format_value(source.asked['time'])}, which holds {format_value(sample)}"
        )


def _near(space: Workspace, rule: TimeRule) -> tuple[float, float]:
    """From when until when a time is not far from the rest."""
    usable = f"time_s BETWEEN {rule.earliest_s!r} AND {rule.latest_s!r}"
    seconds = f"SELECT {rule.sql} AS time_s, file, place FROM {_time_cells(rule.zero_is_missing)}"
    count = int(space.value(f"SELECT count(*) FROM ({seconds}) WHERE {usable}"))
    every = max(1, count // _QUANTILE_ROWS)
    low, high = space.rows(
        "SELECT quantile_disc(time_s, 0.05), quantile_disc(time_s, 0.95)"
        f" FROM ({seconds}) WHERE {usable} AND hash(file, place) % {every} = 0"
    )[0]
    return (0.0, float(times.LATEST_TIME_S)) if low is None else times.near_range(low, high)


def _label_rule(space: Workspace, source: Source, options: MeaningOptions) -> LabelRule:
    values = space.rows(
        f"SELECT {ids.id_sql('label_text')} AS text, count(*) FROM cells WHERE flaw = 0"
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


def _warnings(space: Workspace, source: Source) -> list[str]:
    """What may be wrong with ids and times although they can be read."""
    found = []
    for name in FIELDS[:3]:
        if name not in source.asked:
            continue
        limits = [
            exact_limit(part.kinds[name])
            for part in source.parts
            if isinstance(part, ParquetPart) and name in part.kinds
        ]
        limit = min((limit for limit in limits if limit), default=ids.EXACT_LIMIT)
        columns = ids.profile_sql(f"{name}_text", limit)
        counts = space.rows(f"SELECT {columns} FROM cells WHERE flaw = 0")[0]
        profile = ids.IdProfile(*counts)
        found += ids.id_warnings(source.asked[name], limit, profile)
        found += _points(space, source, name, profile.pointed) if profile.pointed else []
        found += _zeros(space, source, name) if profile.padded else []
    found += _rounded_times(space, source) + _open_quotes(space, source)
    return found


def _points(space: Workspace, source: Source, name: str, pointed: int) -> list[str]:
    """Ids that are numbers with a point, such as 57.0, where others have none."""
    whole = space.value(
        f"SELECT count(*) FROM cells WHERE regexp_full_match({name}_text, '[+-]?[0-9]+')"
    )
    if not whole:
        return []
    return [
        f"column {format_value(source.asked[name])} is written in two ways,"
        f" {format_count(whole)} times like 57 and {format_count(pointed)} times like 57.0;"
        " both are read as 57"
    ]


def _zeros(space: Workspace, source: Source, name: str) -> list[str]:
    """Ids that differ by zeros before them only, such as 007 and 7."""
    cell = f"{name}_text"
    count, first, last = space.rows(
        "SELECT count(*), min(first), arg_min(last, first) FROM"
        f" (SELECT min({cell}) AS first, max({cell}) AS last FROM cells"
        f" WHERE regexp_full_match({cell}, '[0-9]+') GROUP BY ltrim({cell}, '0')"
        f" HAVING min({cell}) <> max({cell}))"
    )[0]
    if not count:
        return []
    return [
        f"column {format_value(source.asked[name])} has {format_count(count)} numbers with and"
        f" without zeros before them, such as {format_value(first)} and {format_value(last)}:"
        " they are different ids here"
    ]


def _rounded_times(space: Workspace, source: Source) -> list[str]:
    rounded, sample = space.rows(
        f"SELECT count(*), min(time_text) FROM cells WHERE flaw = 0 AND {times.rounded_sql()}"
    )[0]
    if not rounded:
        return []
    return [
        f"column {format_value(source.asked['time'])} has {format_count(rounded)} values such"
        f" as {format_value(sample)}, which are rounded: times are right to"
        " their last digit only; export them in full"
    ]


def _open_quotes(space: Workspace, source: Source) -> list[str]:
    count, file, place = space.rows(
        "SELECT count(*), arg_min(file, (file, place)), arg_min(place, (file, place)) FROM cells"
        " WHERE open_quote"
    )[0]
    if not count:
        return []
    return [
        f"{format_count(count)} line{'s' * (count > 1)} with a quote that is never closed, first"
        f" {source.files.place(file, place)}: the quote is read as a character of its value"
    ]
