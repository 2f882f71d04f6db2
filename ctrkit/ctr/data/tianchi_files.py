"""Tianchi's four CSV files as they are: their columns, and which of their rows are usable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from ctrkit.core.errors import UsageError
from ctrkit.ctr.data.ingest import (
    LATEST_TIME_S,
    cell,
    check_columns,
    count_rejected,
    csv_relation,
    estimated_lines,
    header_line,
    read_rows,
)
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
    """The columns of each file that is needed, stripped: one has a trailing space."""
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


def _time_unusable(time: str) -> list[tuple[str, str]]:
    return [
        (f"{time} IS NULL", "time_stamp is no number"),
        (f"{time} <= 0", "time_stamp is not positive"),
    ]


class TianchiFiles:
    """Reads each file into a view of its usable rows, with counts of the others."""

    def __init__(self, space: Workspace, source: Path, headers: Mapping[str, list[str]]) -> None:
        self.space = space
        self.source = source
        self.headers = headers

    def read(self, file: str, work: Callable[[], None]) -> None:
        """A stage that reads a file."""
        self.space.stage(f"reading {file}", work)

    def _read(
        self,
        table: str,
        file: str,
        columns: Mapping[str, str],
        unusable: list[tuple[str, str]],
    ) -> None:
        relation = csv_relation(self.source / file, self.headers[file], table)
        read_rows(
            self.space,
            table,
            file,
            relation,
            columns,
            unusable,
            expected_rows=estimated_lines(self.source / file),
        )
        count_rejected(self.space, table, file)

    def read_impressions(self) -> None:
        """View `shown`: user, time_s, adgroup, clk."""
        columns = {
            "raw_user": _integer("user"),
            "time_s": _integer("time_stamp"),
            "adgroup": _integer("adgroup_id"),
            "clk": _integer("clk"),
        }
        unusable = [
            ("raw_user IS NULL", "user is no number"),
            ("adgroup IS NULL", "adgroup_id is no number"),
            *_time_unusable("time_s"),
            (f"time_s > {LATEST_TIME_S}", "time_stamp is out of range"),
            ("clk IS NULL OR clk NOT IN (0, 1)", "clk is not 0 or 1"),
        ]
        self._read("shown", RAW_SAMPLE, columns, unusable)

    def read_ads(self) -> None:
        """View `ad`: one row per adgroup; NULL where a value is empty, `NULL` or no number."""
        fields = ("cate_id", "campaign_id", "customer", "brand")
        columns = {"adgroup": _integer("adgroup_id")} | {f: _integer(f) for f in fields}
        columns["price"] = f"try_cast({cell('price')} AS DOUBLE)"
        self._read(
            "every_ad", AD_FEATURE, columns, [("adgroup IS NULL", "adgroup_id is no number")]
        )
        self._keep_one("ad", "every_ad", columns, AD_FEATURE, "adgroup_id")

    def read_profiles(self) -> None:
        """View `profile`: one row per user."""
        columns = {"raw_user": _integer("userid")} | {f: _integer(f) for f in PROFILE_FIELDS}
        unusable = [("raw_user IS NULL", "userid is no number")]
        self._read("every_profile", USER_PROFILE, columns, unusable)
        self._keep_one("profile", "every_profile", columns, USER_PROFILE, "userid")

    def _keep_one(
        self, table: str, every: str, columns: Iterable[str], file: str, column: str
    ) -> None:
        """One row per key, the first of the columns: the least row, whatever the file's order."""
        key, *others = columns
        self.space.run(
            f"CREATE TABLE {table} AS SELECT * FROM {every} QUALIFY"
            f" row_number() OVER (PARTITION BY {key} ORDER BY {', '.join(others)}) = 1"
        )
        extra = f"SELECT (SELECT count(*) FROM {every}) - (SELECT count(*) FROM {table})"
        self.space.count_bad(f"{file}: {column} is there twice", self.space.value(extra))

    def read_behaviors(self) -> None:
        """View `whole_log`: raw_user, time_s, cate, brand.

        Users are matched later: DuckDB could not tell how far it is with a file that it joins.
        """
        columns = {
            "raw_user": _integer("user"),
            "time_s": _integer("time_stamp"),
            "cate": _integer("cate"),
            "brand": _integer("brand"),
        }
        outside = f"time_s < {LOG_BEGIN_S} OR time_s >= {LOG_END_S}"
        unusable = [
            ("raw_user IS NULL", "user is no number"),
            *_time_unusable("time_s"),
            (outside, "time_stamp is outside 2017-04-01 .. 2017-05-13"),
            ("cate IS NULL", "cate is no number"),
        ]
        self._read("whole_log", BEHAVIOR_LOG, columns, unusable)

    def match_behaviors(self) -> None:
        """Table `log`: user_id, time_s, cate, brand; only of users who have an impression."""
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
