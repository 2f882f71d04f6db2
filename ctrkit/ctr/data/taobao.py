"""Ingests Alibaba's "Ad Display/Click Data on Taobao.com" (Tianchi 56): four CSVs to a store.

Its decisions:

- Ids are numbered from 2 in ascending order of the raw id, over all usable rows (train and
  validation): users and ads of the impressions, categories of those ads and of the histories,
  brands of the histories. An ad that was never shown gets no row in an embedding table.
- An impression is kept even if its ad or user is in no other file: category 1 (unknown), no
  profile.
- Several impressions of a user in the same second are one page of ads. All are kept, and none is in
  another one's history. If an ad or a user has two rows in its table, one is kept.
- The behaviour log has no item ids. So with `history="behaviors"` the item slot of a history holds
  the brand (1 if unknown) and the category slot the category, numbered together with the ads'
  categories. With `history="impressions"` both slots hold earlier impressions, clicked or not.
- Log rows are kept from 2017-04-01 (five weeks before the first impression) until the end of day 8,
  2017-05-13, Beijing time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from ctrkit.core.errors import UsageError
from ctrkit.ctr.data.ingest import (
    check_split,
    hash_sql,
    known_or_unknown,
    number_ids,
    random_cut,
    write_store,
)
from ctrkit.ctr.data.preparation import Preparation, preparing
from ctrkit.ctr.data.stage_progress import Watcher
from ctrkit.ctr.data.store import Reading, StoreMeta
from ctrkit.ctr.data.tianchi_files import (
    AD_FEATURE,
    BEHAVIOR_LOG,
    PROFILE_FIELDS,
    RAW_SAMPLE,
    USER_PROFILE,
    TianchiFiles,
    read_headers,
)
from ctrkit.ctr.data.workspace import Workspace

BEIJING_UTC_OFFSET_S = 8 * 3600
VALIDATION_BEGIN_S = 1494604800  # 2017-05-13 00:00 in Beijing, day 8
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
    accept_loss: bool = False,
    fresh: bool = False,
    watcher: Watcher | None = None,
) -> StoreMeta:
    """Make a store from the Tianchi CSV files in a folder; continues an interrupted call.

    Args:
        source: the folder with the files; `behavior_log.csv` is needed only for
            `history="behaviors"`.
        out: the store's folder, missing or empty.
        sample_users: share of the impressions' users to keep, in (0, 1]; seeded.
        history: `behaviors` or `impressions`: what a user's history consists of.
        split: `time` (day 8 in Beijing validates) or `random` (14/17 train, seeded).
        seed: seed of the sample and of the random split.
        memory_limit_bytes: DuckDB's memory limit; beyond it, it spills to a folder beside `out`.
        threads: DuckDB's threads; the result does not depend on them.
        accept_loss: continue even if many rows of a file cannot be used.
        fresh: begin anew, whatever an interrupted call left.
        watcher: is told of the stages.

    Returns:
        The store's description. `bad_rows` counts by reason what could not be used as it is;
        `reading.files` accounts for each row of each file.

    Raises:
        UsageError: a file or column is missing, nothing is usable, a split would be empty, or the
            memory limit is too small.
    """
    options = _Options(
        sample_users=sample_users, history=history, split=split, seed=seed, accept_loss=accept_loss
    )
    options.check()
    headers = read_headers(source, history)
    with preparing(
        out,
        inputs=[source / file for file in headers],
        options=options.named(),
        memory_limit_bytes=memory_limit_bytes,
        threads=threads,
        fresh=fresh,
        watcher=watcher,
    ) as preparation:
        files = TianchiFiles(preparation.space, source, headers, accept_loss=accept_loss)
        return _make_store(preparation, files, options)


@dataclass(frozen=True, kw_only=True)
class _Options:
    """What the store depends on besides the files."""

    sample_users: float | None
    history: str
    split: str
    seed: int
    accept_loss: bool

    def named(self) -> dict[str, object]:
        """Each option by its name on the command line."""
        return {f"--{f.name.replace('_', '-')}": getattr(self, f.name) for f in fields(self)}

    def check(self) -> None:
        """Raise UsageError for a value out of range."""
        share = self.sample_users
        if share is not None and not 0 < share <= 1:
            raise UsageError(f"--sample-users {share:g}: must be above 0 and at most 1")
        for option, value, allowed in (
            ("history", self.history, HISTORIES),
            ("split", self.split, SPLITS),
        ):
            if value not in allowed:
                raise UsageError(f"--{option} {value}: unknown; choose {' or '.join(allowed)}")


def _make_store(preparation: Preparation, files: TianchiFiles, options: _Options) -> StoreMeta:
    """Run the stages; a stage that an earlier call finished is skipped."""
    space, builder, source = preparation.space, preparation.builder, files.source
    vocabulary = _read_files(space, files, options)
    detail, rows = space.stage("joining", lambda: _make_impressions(space, options, source))

    def write_tables() -> None:
        builder.add_users(space.table(_USERS))
        builder.add_ads(space.table(_ADS))

    space.stage("users and ads", write_tables)
    write_store(
        space, builder, users=vocabulary["user"], rows=rows, utc_offset_s=BEIJING_UTC_OFFSET_S
    )
    share = options.sample_users
    return preparation.finish(
        name="Taobao ads (Tianchi 56)" + (f", {share:g} of users" if share else ""),
        source=f"prepare --source {source.resolve().name} --history {options.history}"
        + (f" --sample-users {share:g}" if share else ""),
        vocabulary=vocabulary,
        rows=rows,
        split=options.split,
        split_detail=detail,
        history=_HISTORY_SLOTS[options.history],
        bad_rows=space.bad_rows,
        seed=options.seed,
        reading=_reading(files, rows),
    )


def _reading(files: TianchiFiles, rows: Mapping[str, int]) -> Reading:
    """The account of all files; impressions that are not in the store belong to other users."""
    used = sum(rows.values())
    files.not_needed(RAW_SAMPLE, files.accounts[RAW_SAMPLE].used - used)
    impressions = files.accounts[RAW_SAMPLE]
    return Reading(
        rows=impressions.rows,
        used=used,
        blank_lines=impressions.blank_lines,
        first_bad=files.first_bad,
        files=files.accounts,
    )


def _read_files(space: Workspace, files: TianchiFiles, options: _Options) -> dict[str, int]:
    """Read the files and number their ids; returns the sizes of the vocabularies."""
    files.read(RAW_SAMPLE, files.read_impressions)
    files.read(AD_FEATURE, files.read_ads)
    files.read(USER_PROFILE, files.read_profiles)
    vocabulary: dict[str, int] = space.stage(
        "numbering users and ads", lambda: _number_users_and_items(space, options, files.source)
    )
    if options.history == "behaviors":
        files.read(BEHAVIOR_LOG, files.read_behaviors)
        strangers = space.stage("matching users", files.match_behaviors)
        files.not_needed(BEHAVIOR_LOG, strangers)
    more: dict[str, int] = space.stage(
        "numbering brands and categories",
        lambda: _number_history(space, options.history, vocabulary["item"]),
    )
    return vocabulary | more


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


def _number_users_and_items(space: Workspace, options: _Options, source: Path) -> dict[str, int]:
    """Make tables `user_ids` and `item_ids`, and view `kept`: impressions of sampled users."""
    sampled = ""
    share = options.sample_users
    if share is not None and share < 1:
        sampled = f" WHERE {hash_sql(options.seed, 'raw')} < {int(share * 2**64)}"
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
    """Make the table `category_ids`, and `brand_ids` if behaviours are the history."""
    categories = "SELECT cate_id AS raw FROM ad JOIN item_ids ON item_ids.raw = ad.adgroup"
    if history == "behaviors":
        categories += " UNION SELECT cate FROM log"
        items = number_ids(space, "brand_ids", "SELECT brand AS raw FROM log")
    size = number_ids(space, "category_ids", categories)
    return {"category": size, "history_category": size, "history_item": items}


def _make_events(space: Workspace, history: str) -> None:
    """Make the view `events`, from which the histories are taken."""
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
    """Count impressions whose ad or user is in no other file (they are kept)."""
    for table, key, what in (
        ("ad", "adgroup", f"adgroup_id not in {AD_FEATURE} (kept, category unknown)"),
        ("profile", "raw_user", f"user not in {USER_PROFILE} (kept, without profile)"),
    ):
        count = space.value(f"SELECT count(*) FROM kept ANTI JOIN {table} USING ({key})")
        space.count_bad(f"{RAW_SAMPLE}: {what}", count)


def _make_impressions(
    space: Workspace, options: _Options, source: Path
) -> tuple[str, dict[str, int]]:
    """Make tables `impressions` and `events`; returns the split in words, and rows per split."""
    split, seed = options.split, options.seed
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
    _make_events(space, options.history)
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
