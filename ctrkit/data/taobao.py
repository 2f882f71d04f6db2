"""Ingest of Alibaba's "Ad Display/Click Data on Taobao.com" (Tianchi 56): four CSVs to a store.

What is decided here:
- Ids are numbered from 2 in ascending order of the raw id, over all usable rows (train and
  validation): users and ads of the impressions, categories of those ads and of the histories,
  brands of the histories. An ad that was never shown gets no row in an embedding table.
- An impression whose ad or user is in no other file is kept: category 1 (unknown), no profile.
- Several impressions of a user in the same second are one page of ads, so they are all kept; they
  do not see each other in their histories. Of two rows for an ad or a user in the tables of ads or
  users one is kept.
- The behaviour log has no item ids. With `history="behaviors"` the item slot of a history therefore
  holds the brand (1 where it is unknown) and the category slot the category, numbered together
  with the ads' categories. With `history="impressions"` both slots hold earlier impressions,
  clicked or not.
- Log rows are kept from 2017-04-01 (five weeks before the first impression) until the end of day 8,
  2017-05-13, Beijing time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from ctrkit.data.ingest import (
    LATEST_TIME_S,
    cell,
    check_columns,
    check_split,
    count_rejected,
    csv_relation,
    estimated_lines,
    hash_sql,
    header_line,
    known_or_unknown,
    number_ids,
    random_cut,
    read_rows,
    write_store,
)
from ctrkit.data.preparation import preparing
from ctrkit.data.store import StoreMeta
from ctrkit.data.workspace import Watcher, Workspace
from ctrkit.errors import UsageError

BEIJING_UTC_OFFSET_S = 8 * 3600
VALIDATION_BEGIN_S = 1494604800  # 2017-05-13 00:00 in Beijing, day 8
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
HISTORIES = ("behaviors", "impressions")
SPLITS = ("time", "random")


def prepare_tianchi(
    source: Path,
    out: Path,
    *,
    sample_users: float | None = None,
    history: str = "behaviors",
    split: str = "time",
    seed: int = 42,
    memory_limit_bytes: int,
    threads: int,
    fresh: bool = False,
    watcher: Watcher | None = None,
) -> StoreMeta:
    """Make a store of the Tianchi CSV files in a folder, going on from an interrupted call.

    Args:
        source: the folder with the files; `behavior_log.csv` only for `history="behaviors"`.
        out: the store's folder, missing or empty.
        sample_users: share of the users of the impressions to keep, in (0, 1]; seeded.
        history: `behaviors` or `impressions`: what a user's history consists of.
        split: `time` (day 8 in Beijing validates) or `random` (14/17 to train, seeded).
        seed: of the sample and of the random split.
        memory_limit_bytes: DuckDB keeps within it and spills to a folder beside `out`.
        threads: of DuckDB; the result does not depend on them.
        fresh: begin anew whatever an interrupted call left.
        watcher: is told of the stages.

    Returns:
        The store's description. `bad_rows` counts by reason what could not be used as it is.

    Raises:
        UsageError: a file or column is missing, nothing is usable, a split would be empty, or
            the memory limit is too small.
    """
    _check_options(sample_users, history, split)
    headers = _headers(source, history)
    with preparing(
        out,
        inputs=[source / file for file in headers],
        options={
            "--sample-users": sample_users,
            "--history": history,
            "--split": split,
            "--seed": seed,
        },
        memory_limit_bytes=memory_limit_bytes,
        threads=threads,
        fresh=fresh,
        watcher=watcher,
    ) as preparation:
        space, builder = preparation.space, preparation.builder
        files = _Files(space, source, headers)
        files.read(RAW_SAMPLE, files.read_impressions)
        files.read(AD_FEATURE, files.read_ads)
        files.read(USER_PROFILE, files.read_profiles)
        vocabulary = space.stage(
            "numbering users and ads",
            lambda: _number_users_and_items(space, sample_users, seed, source),
        )
        if history == "behaviors":
            files.read(BEHAVIOR_LOG, files.read_behaviors)
            space.stage("matching users", files.match_behaviors)
        vocabulary |= space.stage(
            "numbering brands and categories",
            lambda: _number_history(space, history, vocabulary["item"]),
        )
        detail, rows = space.stage(
            "joining", lambda: _make_impressions(space, history, split, seed, source)
        )

        def write_tables() -> None:
            builder.add_users(space.table(_USERS))
            builder.add_ads(space.table(_ADS))

        space.stage("users and ads", write_tables)
        write_store(
            space,
            builder,
            users=vocabulary["user"],
            rows=rows,
            utc_offset_s=BEIJING_UTC_OFFSET_S,
        )
        return preparation.finish(
            name="Taobao ads (Tianchi 56)"
            + (f", {sample_users:g} of users" if sample_users else ""),
            source=f"prepare --source {source.resolve().name} --history {history}"
            + (f" --sample-users {sample_users:g}" if sample_users else ""),
            vocabulary=vocabulary,
            rows=rows,
            split=split,
            split_detail=detail,
            history=_HISTORY_SLOTS[history],
            bad_rows=space.bad_rows,
            seed=seed,
        )


_HISTORY_SLOTS = {
    "behaviors": {
        "kind": "behaviors",
        "item": "brand of the behaviour (the log has no item ids)",
        "category": "category of the behaviour, numbered with the ads' categories",
    },
    "impressions": {
        "kind": "impressions",
        "item": "ad of an earlier impression, numbered with the ads",
        "category": "category of that ad",
    },
}


def _check_options(sample_users: float | None, history: str, split: str) -> None:
    if sample_users is not None and not 0 < sample_users <= 1:
        raise UsageError(f"--sample-users {sample_users:g}: must be above 0 and at most 1")
    for option, value, allowed in (("history", history, HISTORIES), ("split", split, SPLITS)):
        if value not in allowed:
            raise UsageError(f"--{option} {value}: unknown; choose {' or '.join(allowed)}")


def _headers(source: Path, history: str) -> dict[str, list[str]]:
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


class _Files:
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


def _number_users_and_items(
    space: Workspace, sample_users: float | None, seed: int, source: Path
) -> dict[str, int]:
    """Tables `user_ids` and `item_ids`, and view `kept`: the impressions of the sampled users."""
    sampled = ""
    if sample_users is not None and sample_users < 1:
        sampled = f" WHERE {hash_sql(seed, 'raw')} < {int(sample_users * 2**64)}"
    users = f"SELECT raw FROM (SELECT DISTINCT raw_user AS raw FROM shown){sampled}"
    vocabulary = {"user": number_ids(space, "user_ids", users)}
    space.run(
        "CREATE VIEW kept AS SELECT shown.*, user_ids.id AS user_id"
        " FROM shown JOIN user_ids ON user_ids.raw = shown.raw_user"
    )
    if not space.value("SELECT count(*) FROM kept"):
        reasons = "; ".join(f"{count} x {reason}" for reason, count in space.bad_rows.items())
        why = "the sample has no user" if sampled else reasons or "it has no rows"
        raise UsageError(f"{source / RAW_SAMPLE}: no usable row: {why}")
    vocabulary["item"] = number_ids(space, "item_ids", "SELECT adgroup AS raw FROM kept")
    return vocabulary


def _number_history(space: Workspace, history: str, items: int) -> dict[str, int]:
    """Table `category_ids`, and `brand_ids` where behaviours are the history."""
    categories = "SELECT cate_id AS raw FROM ad JOIN item_ids ON item_ids.raw = ad.adgroup"
    if history == "behaviors":
        categories += " UNION SELECT cate FROM log"
        items = number_ids(space, "brand_ids", "SELECT brand AS raw FROM log")
    size = number_ids(space, "category_ids", categories)
    return {"category": size, "history_category": size, "history_item": items}


def _make_events(space: Workspace, history: str) -> None:
    """View `events`: what the histories consist of."""
    if history == "impressions":
        space.run("CREATE VIEW events AS SELECT user, time_s, item, category FROM impressions")
        return
    space.run(
        "CREATE VIEW events AS SELECT user_id AS user, time_s,"
        f" {known_or_unknown('brand_ids.id')} AS item,"
        f" {known_or_unknown('category_ids.id')} AS category"
        " FROM log LEFT JOIN brand_ids ON brand_ids.raw = log.brand"
        " LEFT JOIN category_ids ON category_ids.raw = log.cate"
    )


def _count_unknown(space: Workspace) -> None:
    """Count impressions that are kept although their ad or user is in no other file."""
    for table, key, what in (
        ("ad", "adgroup", f"adgroup_id not in {AD_FEATURE} (kept, category unknown)"),
        ("profile", "raw_user", f"user not in {USER_PROFILE} (kept, without profile)"),
    ):
        count = space.value(f"SELECT count(*) FROM kept ANTI JOIN {table} USING ({key})")
        space.count_bad(f"{RAW_SAMPLE}: {what}", count)


def _make_impressions(
    space: Workspace, history: str, split: str, seed: int, source: Path
) -> tuple[str, dict[str, int]]:
    """Tables `impressions` and `events`; returns the split in words and its rows per side."""
    _count_unknown(space)
    hashed = hash_sql(seed, "raw_user", "time_s", "adgroup", "clk")
    space.run(
        f"CREATE TABLE rated AS SELECT user_id AS user, item_ids.id AS item,"
        f" {known_or_unknown('category_ids.id')} AS category, time_s, clk AS label,"
        f" {hashed if split == 'random' else '0'} AS hash"
        " FROM kept JOIN item_ids ON item_ids.raw = kept.adgroup"
        " LEFT JOIN ad USING (adgroup) LEFT JOIN category_ids ON category_ids.raw = ad.cate_id"
    )
    if split == "random":
        train, detail = random_cut(space, seed), f"14/17 of the rows to train, seed {seed}"
    else:
        train = f"time_s < {VALIDATION_BEGIN_S}"
        detail = f"validation from Unix time {VALIDATION_BEGIN_S} (2017-05-13 in Beijing)"
    space.run(f"CREATE VIEW impressions AS SELECT * EXCLUDE (hash), {train} AS train FROM rated")
    rows = check_split(space, split, source / RAW_SAMPLE)
    _make_events(space, history)
    total = sum(rows.values())
    space.advance(total, total)
    return detail, rows


_USERS = (
    "SELECT user_ids.id AS user, user_ids.raw AS userid,"
    f" {', '.join(f'{field}::INTEGER AS {field}' for field in PROFILE_FIELDS)}"
    " FROM user_ids LEFT JOIN profile ON profile.raw_user = user_ids.raw ORDER BY user"
)
_ADS = (
    "SELECT item_ids.id AS item, item_ids.raw AS adgroup_id,"
    f" {known_or_unknown('category_ids.id')} AS category,"
    " cate_id, campaign_id, customer, brand, price"
    " FROM item_ids LEFT JOIN ad ON ad.adgroup = item_ids.raw"
    " LEFT JOIN category_ids ON category_ids.raw = ad.cate_id ORDER BY item"
)
