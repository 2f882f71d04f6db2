"""Reads Tianchi's four CSV files: their columns, and which of their rows are usable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ctrkit.core.errors import UsageError
from ctrkit.core.units import format_count, format_percent, format_value
from ctrkit.ctr.data.ingest import (
    LATEST_TIME_S,
    Unusable,
    cell,
    check_columns,
    count_lines,
    csv_relation,
    estimated_lines,
    header_line,
    read_rows,
    rejected_lines,
)
from ctrkit.ctr.data.store import FileAccount
from ctrkit.ctr.data.tables.counting import MOST_DROPPED_SHARE
from ctrkit.ctr.data.workspace import Workspace

LOG_BEGIN_S = 1490976000  # 2017-04-01 00:00 in Beijing
LOG_END_S = 1494691200  # 2017-05-14 00:00 in Beijing

RAW_SAMPLE = "raw_sample.csv"
AD_FEATURE = "ad_feature.csv"
USER_PROFILE = "user_profile.csv"
BEHAVIOR_LOG = "behavior_log.csv"
PROFILE_FIELDS = (
    "cms_segid",
    "cms_group_id",
    "final_gender_code",
    "age_level",
    "pvalue_level",
    "shopping_level",
    "occupation",
    "new_user_class_level",
)
COLUMNS: Mapping[str, Sequence[str]] = {
    RAW_SAMPLE: ("user", "time_stamp", "adgroup_id", "pid", "nonclk", "clk"),
    AD_FEATURE: ("adgroup_id", "cate_id", "campaign_id", "customer", "brand", "price"),
    USER_PROFILE: ("userid", *PROFILE_FIELDS),
    BEHAVIOR_LOG: ("user", "time_stamp", "btag", "cate", "brand"),
}


def read_headers(source: Path, history: str) -> dict[str, list[str]]:
    """The columns of each needed file, stripped: one has a trailing space."""
    if not source.is_dir():
        raise UsageError(f"--source {source}: no such folder")
    headers = {}
    for file, required in COLUMNS.items():
        if file == BEHAVIOR_LOG and history != "behaviors":
            continue
        path = source / file
        if not path.is_file():
            advice = ", or use --history impressions" if file == BEHAVIOR_LOG else ""
            raise UsageError(f"{path}: no such file; put the data set's {file} there{advice}")
        headers[file] = [column.strip() for column in header_line(path).split(",")]
        check_columns(path, headers[file], required)
    return headers


def _integer(column: str) -> str:
    return f"try_cast({cell(column)} AS BIGINT)"


def _no_number(test_column: str, column: str) -> Unusable:
    return Unusable(f"{test_column} IS NULL", column, "is no number")


def _time_unusable(time: str) -> list[Unusable]:
    return [
        _no_number(time, "time_stamp"),
        Unusable(f"{time} <= 0", "time_stamp", "is not positive"),
    ]


class TianchiFiles:
    """Reads each file into a view of its usable rows, and counts the others.

    Attributes:
        accounts: what became of each file's rows. Rows of impressions and behaviours count as used
            until it is known which ones are not needed.
        first_bad: the first bad value, by reason.
    """

    def __init__(
        self,
        space: Workspace,
        source: Path,
        headers: Mapping[str, list[str]],
        *,
        accept_loss: bool = False,
    ) -> None:
        self.space = space
        self.source = source
        self.headers = headers
        self.accounts: dict[str, FileAccount] = {}
        self.first_bad: dict[str, str] = {}
        self._accept_loss = accept_loss

    def read(self, file: str, work: Callable[[], dict[str, Any]]) -> None:
        """Run a stage that reads a file.

        Raises:
            UsageError: too many of its rows cannot be used, and the user does not accept that.
        """
        found = self.space.stage(f"reading {file}", work)
        self.first_bad |= found["first"]
        counts = {name: found[name] for name in ("rows", "dropped", "blank_lines")}
        account = FileAccount(**counts, used=found["rows"] - found["dropped"])
        self.accounts[file] = account
        if account.dropped > MOST_DROPPED_SHARE * account.rows and not self._accept_loss:
            reasons = "; ".join(
                f"{format_count(self.space.bad_rows[reason])} x {reason.partition(': ')[2]},"
                f" such as {sample}"
                for reason, sample in found["first"].items()
            )
            raise UsageError(
                f"{self.source / file}: {format_count(account.dropped)} of"
                f" {format_count(account.rows)} rows"
                f" ({format_percent(account.dropped / account.rows)}) cannot be used: {reasons};"
                " --accept-loss continues without them"
            )

    def not_needed(self, file: str, rows: int) -> None:
        """Note that so many usable rows of a file belong to no impression of the store."""
        account = self.accounts[file]
        self.accounts[file] = replace(account, used=account.used - rows, not_needed=rows)

    def _read(
        self,
        table: str,
        file: str,
        columns: Mapping[str, str],
        unusable: list[Unusable],
    ) -> dict[str, Any]:
        """Read a file into a view; every line of it is either read or rejected.

        Raises:
            UsageError: lines and rows do not add up.
        """
        path = self.source / file
        relation = csv_relation(path, self.headers[file], table)
        read = read_rows(
            self.space, table, relation, columns, unusable, expected_rows=estimated_lines(path)
        )
        rejected = rejected_lines(self.space, table)
        lines, blank = count_lines(path)
        rows = lines - 1  # the header
        if rows != read.rows + rejected.rows:
            raise UsageError(
                f"{path}: has {rows:,} lines after its header, but {read.rows:,} rows were read and"
                f" {rejected.rows:,} lines rejected; a line may end with a lone carriage return:"
                " write each with a line feed"
            )
        dropped = read.dropped | rejected.dropped
        for reason, count in dropped.items():
            self.space.count_bad(f"{file}: {reason}", count)
        return {
            "rows": rows,
            "dropped": sum(dropped.values()),
            "blank_lines": blank,
            "first": {
                f"{file}: {why}": each for why, each in (read.first | rejected.first).items()
            },
        }

    def read_impressions(self) -> dict[str, Any]:
        """Make the view `shown`: user, time_s, adgroup, clk."""
        columns = {
            "raw_user": _integer("user"),
            "time_s": _integer("time_stamp"),
            "adgroup": _integer("adgroup_id"),
            "clk": _integer("clk"),
        }
        unusable = [
            _no_number("raw_user", "user"),
            _no_number("adgroup", "adgroup_id"),
            *_time_unusable("time_s"),
            Unusable(f"time_s > {LATEST_TIME_S}", "time_stamp", "is out of range"),
            Unusable("clk IS NULL OR clk NOT IN (0, 1)", "clk", "is not 0 or 1"),
        ]
        return self._read("shown", RAW_SAMPLE, columns, unusable)

    def read_ads(self) -> dict[str, Any]:
        """Make the view `ad`: one row per adgroup.

        NULL for a value that is empty, `NULL` or no number.
        """
        fields = ("cate_id", "campaign_id", "customer", "brand")
        columns = {"adgroup": _integer("adgroup_id")} | {f: _integer(f) for f in fields}
        columns["price"] = f"try_cast({cell('price')} AS DOUBLE)"
        unusable = [_no_number("adgroup", "adgroup_id")]
        found = self._read("every_ad", AD_FEATURE, columns, unusable)
        return self._keep_one(found, "ad", "every_ad", columns, AD_FEATURE, "adgroup_id")

    def read_profiles(self) -> dict[str, Any]:
        """Make the view `profile`: one row per user."""
        columns = {"raw_user": _integer("userid")} | {f: _integer(f) for f in PROFILE_FIELDS}
        unusable = [_no_number("raw_user", "userid")]
        found = self._read("every_profile", USER_PROFILE, columns, unusable)
        return self._keep_one(found, "profile", "every_profile", columns, USER_PROFILE, "userid")

    def _keep_one(
        self,
        found: dict[str, Any],
        table: str,
        every: str,
        columns: Iterable[str],
        file: str,
        column: str,
    ) -> dict[str, Any]:
        """Keep one row per key (the first column): the smallest row, in any order of the file."""
        key, *others = columns
        self.space.run(
            f"CREATE TABLE {table} AS SELECT * FROM {every} QUALIFY"
            f" row_number() OVER (PARTITION BY {key} ORDER BY {', '.join(others)}) = 1"
        )
        extra = int(
            self.space.value(
                f"SELECT (SELECT count(*) FROM {every}) - (SELECT count(*) FROM {table})"
            )
        )
        reason = f"{file}: {column} is there twice"
        self.space.count_bad(reason, extra)
        if not extra:
            return found
        twice = (
            f"SELECT min({key}) FROM (SELECT {key} FROM {every} GROUP BY ALL HAVING count(*) > 1)"
        )
        first = {reason: format_value(self.space.value(twice))}
        return found | {"dropped": found["dropped"] + extra, "first": found["first"] | first}

    def read_behaviors(self) -> dict[str, Any]:
        """Make the view `whole_log`: raw_user, time_s, cate, brand.

        Users are matched later, because DuckDB cannot report its progress on a file that it joins.
        """
        columns = {
            "raw_user": _integer("user"),
            "time_s": _integer("time_stamp"),
            "cate": _integer("cate"),
            "brand": _integer("brand"),
        }
        outside = f"time_s < {LOG_BEGIN_S} OR time_s >= {LOG_END_S}"
        unusable = [
            _no_number("raw_user", "user"),
            *_time_unusable("time_s"),
            Unusable(outside, "time_stamp", "is outside 2017-04-01 .. 2017-05-13"),
            _no_number("cate", "cate"),
        ]
        return self._read("whole_log", BEHAVIOR_LOG, columns, unusable)

    def match_behaviors(self) -> int:
        """Make the table `log` of users with an impression: user_id, time_s, cate, brand.

        Returns:
            The number of rows of other users.
        """
        whole = int(self.space.value("SELECT count(*) FROM whole_log"))
        self.space.advance(0, whole)
        self.space.run(
            "CREATE TABLE log AS SELECT user_ids.id AS user_id, time_s, cate, brand"
            " FROM whole_log JOIN user_ids ON user_ids.raw = whole_log.raw_user"
        )
        strangers = whole - int(self.space.value("SELECT count(*) FROM log"))
        self.space.count_bad(f"{BEHAVIOR_LOG}: user has no impression here", strangers)
        self.space.run("DROP VIEW whole_log")
        self.space.run("DROP TABLE whole_log_read")
        self.space.advance(whole, whole)
        return strangers
