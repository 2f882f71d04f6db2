"""Ingests any interactions log (user, item, time, label) into a store.

Its decisions:

- Every cell is read as text, so the reader guesses nothing. `tables` says what cells mean, and
  accounts for each row. Ids are numbered from 2 over all usable rows: numbers first, in numeric
  order, then other texts in text order.
- Times are whole seconds. A text without an offset is UTC; hour and weekday of an impression are in
  UTC.
- A history holds the user's positives strictly before the impression, in whole seconds. Its items
  and categories share the impressions' numbering. Without a category column there is one category.
- A time split validates on the latest 15 % of the rows; rows of the same second stay together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ctrkit.core.errors import UsageError
from ctrkit.core.units import format_time, format_value
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
from ctrkit.ctr.data.store import FIRST_REAL_ID, Reading, StoreMeta
from ctrkit.ctr.data.tables.columns import TableColumns
from ctrkit.ctr.data.tables.counting import count_rows
from ctrkit.ctr.data.tables.meaning import Meaning, MeaningOptions, find_meaning
from ctrkit.ctr.data.tables.reading import Source, TextOptions, open_source, read_cells
from ctrkit.ctr.data.tables.time_forms import EARLIEST_S, latest_plausible_s
from ctrkit.ctr.data.workspace import Workspace

SPLITS = ("time", "random")
VALIDATION_SHARE = 0.15

_USERS = "SELECT id AS user, raw.text AS user_id FROM user_ids ORDER BY id"
_ITEMS = "SELECT id AS item, raw.text AS item_id FROM item_ids ORDER BY id"


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """The user's options for a table and the store made from it.

    Attributes:
        columns: the column of each field.
        text: how to read a text file.
        meaning: what its cells mean.
        accept_loss: continue even if many rows cannot be used.
        split: `time` (the latest 15 % validate) or `random` (14/17 train, seeded).
        seed: seed of the random split.
    """

    columns: TableColumns
    text: TextOptions = field(default_factory=TextOptions)
    meaning: MeaningOptions = field(default_factory=MeaningOptions)
    accept_loss: bool = False
    split: str = "time"
    seed: int = 42

    @classmethod
    def of(
        cls,
        columns: Mapping[str, Any],
        text: Mapping[str, Any],
        meaning: Mapping[str, Any],
        **others: Any,
    ) -> TableOptions:
        """Make the options from plain values."""
        return cls(
            columns=TableColumns(**columns),
            text=TextOptions(**text),
            meaning=MeaningOptions(**meaning),
            **others,
        )

    def check(self) -> None:
        """Check the options before any file is opened.

        Raises:
            UsageError: one is unknown, or two exclude each other.
        """
        if self.split not in SPLITS:
            raise UsageError(f"--split {self.split}: unknown; choose {' or '.join(SPLITS)}")
        self.text.check()
        self.meaning.check()

    def of_manifest(self) -> dict[str, object]:
        """The options that the store depends on, as JSON values by option."""
        said = {**vars(self.columns), **vars(self.text), **vars(self.meaning)}
        del said["now_s"]
        said |= {"accept_loss": self.accept_loss, "split": self.split, "seed": self.seed}
        return {
            f"--{name.replace('_', '-')}": list(value) if isinstance(value, tuple) else value
            for name, value in said.items()
        }


def prepare_table(
    path: Path,
    out: Path,
    options: TableOptions,
    *,
    memory_limit_bytes: int,
    threads: int,
    fresh: bool = False,
    watcher: Watcher | None = None,
) -> StoreMeta:
    """Make a store from a table with one row per impression; continues an interrupted call.

    Args:
        path: a text or Parquet file, a folder of such files, or a pattern; see docs/tables.md.
        out: the store's folder, missing or empty.
        options: the user's options.
        memory_limit_bytes: DuckDB's memory limit; beyond it, it spills to a folder beside `out`.
        threads: DuckDB's threads; the result does not depend on them.
        fresh: begin anew, whatever an interrupted call left.
        watcher: is told of the stages.

    Returns:
        The store's description. `bad_rows` counts unusable rows by reason; together with
        `reading.used` they are all rows of the table.

    Raises:
        UsageError: a file or column is missing or not readable, times or labels cannot be
            understood, too many rows are unusable, a split would be empty, or the memory limit is
            too small.
    """
    options.check()
    source = open_source(path, options.columns.asked, options.text)
    with preparing(
        out,
        inputs=source.files.files,
        options=options.of_manifest(),
        memory_limit_bytes=memory_limit_bytes,
        threads=threads,
        fresh=fresh,
        watcher=watcher,
    ) as preparation:
        return _prepare(preparation, source, options)


def _prepare(preparation: Preparation, source: Source, options: TableOptions) -> StoreMeta:
    """The stages from the files to the store."""
    space, builder = preparation.space, preparation.builder
    name, path = source.files.name, source.files.named
    space.stage(f"reading {name}", lambda: read_cells(space, source))
    reading, positive = space.stage("checking cells", lambda: _judge(space, source, options))
    with_category = options.columns.category is not None
    vocabulary = space.stage(
        "numbering ids", lambda: _number_ids(space, with_category=with_category)
    )
    detail, rows = space.stage(
        "joining", lambda: _make_impressions(space, path, options.split, options.seed)
    )

    def write_tables() -> None:
        builder.add_users(space.table(_USERS))
        builder.add_ads(space.table(_ITEMS))

    space.stage("users and items", write_tables)
    write_store(space, builder, users=vocabulary["user"], rows=rows, utc_offset_s=0)
    return preparation.finish(
        name=Path(name).stem,
        source=f"prepare --table {name}",
        vocabulary=vocabulary,
        rows=rows,
        split=options.split,
        split_detail=detail,
        history={
            "kind": "positives",
            "item": f"item of an earlier row with {positive}, numbered with the items",
            "category": "category of that row",
        },
        bad_rows=space.bad_rows,
        seed=options.seed,
        reading=Reading(**reading),
    )


def _judge(space: Workspace, source: Source, options: TableOptions) -> tuple[dict[str, Any], str]:
    """Make the view `usable`; returns the fields of a `Reading`, and the label rule in words."""
    meaning = find_meaning(space, source, options.meaning)
    account = count_rows(space, source, meaning)
    account.check(str(source.files.named), accept_loss=options.accept_loss)
    reasons = {f"{source.files.name}: {each.words}": each for each in account.dropped}
    for reason, each in reasons.items():
        space.count_bad(reason, each.rows)
    space.advance(account.rows, account.rows)
    reading = {
        "rows": account.rows,
        "used": account.used,
        "blank_lines": account.blank_lines,
        "first_bad": {reason: each.first for reason, each in reasons.items()},
        "notes": [*source.notes, *meaning.notes(source.asked)],
        "warnings": [
            *meaning.warnings,
            *_odd_range(space, meaning, options),
            *_one_sided(space, options.columns.label),
        ],
    }
    return reading, meaning.label.words


def _odd_range(space: Workspace, meaning: Meaning, options: TableOptions) -> list[str]:
    """A warning if times are implausible with the user's own reading of them."""
    first_s, last_s = space.rows("SELECT min(time_s), max(time_s) FROM usable")[0]
    latest_s = latest_plausible_s(options.meaning.now_s)
    if not meaning.time.is_said or (first_s >= EARLIEST_S and last_s <= latest_s):
        return []
    which = "before 1990" if first_s < EARLIEST_S else "in the future"
    return [
        f"times of column {format_value(options.columns.time)} run from {format_time(first_s)} to"
        f" {format_time(last_s)}, some of them {which}: fine if they count steps of your own, else"
        f" {meaning.time.words} is wrong"
    ]


def _one_sided(space: Workspace, column: str) -> list[str]:
    """A warning if all rows have the same label."""
    least, most = space.rows("SELECT min(label), max(label) FROM usable")[0]
    if least != most:
        return []
    which = "every row is positive" if least else "no row is positive"
    return [f"{which}: a model learns nothing from column {format_value(column)}"]


def _raw(column: str) -> str:
    """SQL to sort ids by: numbers first, in numeric order."""
    order = f"coalesce(try_cast({column} AS HUGEINT), {2**126})"
    return f"CASE WHEN {column} IS NOT NULL THEN {{'number': {order}, 'text': {column}}} END"


def _number_ids(space: Workspace, *, with_category: bool) -> dict[str, int]:
    """Make the tables `user_ids`, `item_ids` and `category_ids` of raw {number, text} and id."""
    sizes = {
        what: number_ids(space, f"{what}_ids", f"SELECT {_raw(f'raw_{what}')} AS raw FROM usable")
        for what in ("user", "item", "category")
    }
    if not with_category:
        sizes["category"] = FIRST_REAL_ID + 1
    return sizes | {"history_item": sizes["item"], "history_category": sizes["category"]}


def _make_impressions(
    space: Workspace, path: Path, split: str, seed: int
) -> tuple[str, dict[str, int]]:
    """Make the tables `impressions` and `events`.

    Returns the split in words, and rows per split.
    """
    with_category = space.value("SELECT count(*) FROM category_ids") > 0
    category = known_or_unknown("category_ids.id") if with_category else str(FIRST_REAL_ID)
    hashed = hash_sql(seed, "raw_user", "raw_item", "time_s", "label")
    space.run(
        f"CREATE TABLE rated AS SELECT user_ids.id AS user, item_ids.id AS item,"
        f" {category} AS category, time_s, label, {hashed if split == 'random' else '0'} AS hash"
        " FROM usable JOIN user_ids ON user_ids.raw.text = raw_user"
        " JOIN item_ids ON item_ids.raw.text = raw_item"
        " LEFT JOIN category_ids ON category_ids.raw.text = raw_category"
    )
    if split == "random":
        train, detail = random_cut(space, seed), f"14/17 of the rows to train, seed {seed}"
    else:
        cut_s = _time_cut_s(space)
        train = f"time_s < {cut_s}"
        detail = f"the latest 15 % validate, from {format_time(cut_s)} ({cut_s})"
    space.run(f"CREATE VIEW impressions AS SELECT * EXCLUDE (hash), {train} AS train FROM rated")
    space.run(
        "CREATE VIEW events AS SELECT user, time_s, item, category FROM rated WHERE label = 1"
    )
    rows = check_split(space, split, path)
    total = sum(rows.values())
    space.advance(total, total)
    return detail, rows


def _time_cut_s(space: Workspace) -> Any:
    """The time that cuts off the latest 15 % of the rows."""
    count = space.value("SELECT count(*) FROM rated")
    train = min(int(count * (1 - VALIDATION_SHARE)), count - 1)
    return space.value(f"SELECT time_s FROM rated ORDER BY time_s LIMIT 1 OFFSET {train}")
