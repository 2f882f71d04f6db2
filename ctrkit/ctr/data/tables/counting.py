"""Accounts for each row of a table: used, or dropped for one reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ctrkit.core.errors import UsageError
from ctrkit.core.units import format_count, format_percent, format_value
from ctrkit.ctr.data.tables import ids, time_forms, times
from ctrkit.ctr.data.tables.meaning import Meaning
from ctrkit.ctr.data.tables.reading import BLANK, Source
from ctrkit.ctr.data.workspace import Workspace

#: a larger share is refused, unless the user accepts it
MOST_DROPPED_SHARE = 0.2


@dataclass(frozen=True)
class Reason:
    """Why a row is dropped.

    Attributes:
        test: SQL on the columns of `judged`.
        words: the reason.
        sample: SQL for the value to blame.
    """

    test: str
    words: str
    sample: str


@dataclass(frozen=True)
class Dropped:
    """Rows dropped for a reason; `first` says where the first one is, and its value."""

    words: str
    rows: int
    first: str


@dataclass(frozen=True)
class Account:
    """The account of a table's rows: used and dropped."""

    used: int
    blank_lines: int
    dropped: tuple[Dropped, ...]

    @property
    def rows(self) -> int:
        """Number of rows of the table."""
        return self.used + sum(each.rows for each in self.dropped)

    @property
    def dropped_share(self) -> float:
        """The share of the rows that are dropped."""
        return 1 - self.used / self.rows if self.rows else 0.0

    def check(self, where: str, *, accept_loss: bool) -> None:
        """Check that enough rows are used.

        Raises:
            UsageError: none is used, or too many are dropped and the user does not accept that.
        """
        reasons = "; ".join(
            f"{format_count(each.rows)} x {each.words}, first in {each.first}"
            for each in self.dropped
        )
        if not self.used:
            raise UsageError(f"{where}: no usable row: {reasons or 'it has no rows'}")
        if self.dropped_share > MOST_DROPPED_SHARE and not accept_loss:
            raise UsageError(
                f"{where}: {format_count(self.rows - self.used)} of {format_count(self.rows)} rows"
                f" ({format_percent(self.dropped_share)}) cannot be used: {reasons};"
                " --accept-loss continues without them"
            )


def count_rows(space: Workspace, source: Source, meaning: Meaning) -> Account:
    """Make the view `usable` of the table `cells`, and account for each row.

    The view has raw_user, raw_item, raw_category, time_s and label.
    """
    reasons = _reasons(source, meaning)
    cases = " ".join(f"WHEN {each.test} THEN {i}" for i, each in enumerate(reasons))
    samples = " ".join(f"WHEN {i} THEN {each.sample}" for i, each in enumerate(reasons))
    ids_of = ", ".join(
        f"{ids.id_sql(f'{field}_text')} AS raw_{field}" for field in ("user", "item", "category")
    )
    space.run(
        "CREATE TABLE judged AS SELECT raw_user, raw_item, raw_category, time_s, label, bad,"
        f" file, place, CASE bad {samples} END AS sample FROM ("
        f"SELECT *, (CASE WHEN flaw = {BLANK} THEN -1 {cases} END)::TINYINT AS bad FROM ("
        f"SELECT *, {ids_of}, floor({meaning.time.sql}) AS time_s, {meaning.label.sql} AS label"
        f" FROM (SELECT *, {ids.id_sql('label_text', dashes=False)} AS label_value FROM cells)))"
    )
    space.run("DROP TABLE cells")
    space.run(
        "CREATE VIEW usable AS SELECT raw_user, raw_item, raw_category, time_s::BIGINT AS time_s,"
        " label FROM judged WHERE bad IS NULL"
    )
    counted = space.rows(
        "SELECT bad, count(*), min((file, place)), arg_min(sample, (file, place))"
        " FROM judged WHERE bad IS NOT NULL GROUP BY bad ORDER BY bad"
    )
    used = space.value("SELECT count(*) FROM judged WHERE bad IS NULL")
    return _account(source, reasons, used, counted)


def _account(
    source: Source, reasons: Sequence[Reason], used: int, counted: Sequence[tuple[Any, ...]]
) -> Account:
    blank = 0
    dropped = []
    for bad, rows, first, sample in counted:
        if bad < 0:
            blank = rows
        else:
            file, place = first
            shown = "" if sample is None else f": {format_value(sample)}"
            where = source.files.place(file, place)
            dropped.append(Dropped(reasons[bad].words, rows, where + shown))
    return Account(used, blank, tuple(dropped))


def _reasons(source: Source, meaning: Meaning) -> list[Reason]:
    """The reasons in order: the first that holds is counted."""
    names = {field: format_value(name)[1:-1] for field, name in source.asked.items()}
    rule = meaning.time
    found = [Reason(f"flaw = {flaw}", words, "line") for flaw, words in source.flaws.items()]
    for field, cell in (("user", "user_text"), ("item", "item_text")):
        found += [
            Reason(f"coalesce({cell}, '') = ''", f"{names[field]} is empty", "NULL"),
            Reason(f"raw_{field} IS NULL", f"{names[field]} is missing", cell),
        ]
    found.append(Reason("coalesce(time_text, '') = ''", f"{names['time']} is empty", "NULL"))
    missing = ids.missing_sql("time_text")
    missing += f" OR {time_forms.missing_sql()}" if rule.zero_is_missing else ""
    low, high = meaning.near_s
    usable = f"time_s BETWEEN {rule.earliest_s!r} AND {rule.latest_s!r}"
    far = f"far from the rest, before {times.as_date(low)} or after {times.as_date(high)}"
    found += [
        Reason(missing, f"{names['time']} is missing", "time_text"),
        Reason("time_s IS NULL OR isnan(time_s)", f"{names['time']} is no time", "time_text"),
        Reason(f"NOT ({usable})", f"{names['time']} {rule.outside}", "time_text"),
        Reason(
            f"NOT (time_s BETWEEN {low!r} AND {high!r})", f"{names['time']} is {far}", "time_text"
        ),
        Reason("coalesce(label_text, '') = ''", f"{names['label']} is empty", "NULL"),
        Reason(
            ids.missing_sql("label_text", dashes=False),
            f"{names['label']} is missing",
            "label_text",
        ),
        Reason("label IS NULL", f"{names['label']} is not {meaning.label.expected}", "label_text"),
    ]
    return found
