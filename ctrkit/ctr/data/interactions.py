"""Ingest of any interactions log: one CSV or Parquet table of user, item, time, label to a store.

What is decided here:
- Every column is read as text, so nothing is guessed. Ids are numbered from 2 over all usable rows:
  numbers in numeric order first, other texts in text order after them.
- Times are numbers, or texts such as `2017-05-06`, `2017-05-06 10:00:00`, `2017-05-06T10:00+08:00`;
  what more cells are is taken. Numbers are Unix times, in the unit that their median fits: seconds
  below 1e11, milliseconds below 1e14, microseconds below 1e17, else nanoseconds. Kept in whole
  seconds. A text without an offset is taken as UTC; hour and weekday of an impression are UTC's.
- A history holds the user's earlier positives, strictly before in whole seconds; its item and
  category are numbered with the impressions'. Without a category column there is one category.
- A time split validates on the latest 15 % of the rows; rows of the same second stay together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctrkit.core.errors import UsageError
from ctrkit.ctr.data.ingest import (
    LATEST_TIME_S,
    check_columns,
    check_split,
    count_rejected,
    csv_relation,
    estimated_lines,
    hash_sql,
    header_line,
    known_or_unknown,
    name,
    number_ids,
    random_cut,
    read_rows,
    write_store,
)
from ctrkit.ctr.data.preparation import preparing
from ctrkit.ctr.data.store import FIRST_REAL_ID, StoreMeta
from ctrkit.ctr.data.workspace import Watcher, Workspace, first_line, literal

VALIDATION_SHARE = 0.15
DELIMITERS = (",", "\t", ";", "|")
_UNITS_PER_S = ((1e11, 1.0), (1e14, 1e3), (1e17, 1e6), (math.inf, 1e9))  # below: per second

_USERS = "SELECT id AS user, raw.text AS user_id FROM user_ids ORDER BY id"
_ITEMS = "SELECT id AS item, raw.text AS item_id FROM item_ids ORDER BY id"


@dataclass(frozen=True, kw_only=True)
class TableColumns:
    """Which column of a table is what; `category` may be None."""

    user: str
    item: str
    time: str
    label: str
    category: str | None = None


def prepare_table(
    path: Path,
    out: Path,
    *,
    user: str,
    item: str,
    time: str,
    label: str,
    category: str | None = None,
    label_threshold: float | None = None,
    split: str = "time",
    seed: int = 42,
    memory_limit_bytes: int,
    threads: int,
    fresh: bool = False,
    watcher: Watcher | None = None,
) -> StoreMeta:
    """Make a store of a table with a row per impression, going on from an interrupted call.

    Args:
        path: a Parquet file (`.parquet`), or a text file whose first line names the columns,
            delimited by comma, tab, semicolon or bar. `name` finds a column `name:type` too.
        out: the store's folder, missing or empty.
        user: the column of user ids.
        item: the column of item ids.
        time: the column of times.
        label: the column of labels.
        category: the column of the items' categories, None if there is none.
        label_threshold: a label of at least this is positive; without it labels are 0 and 1.
        split: `time` (the latest 15 % validate) or `random` (14/17 to train, seeded).
        seed: of the random split.
        memory_limit_bytes: DuckDB keeps within it and spills to a folder beside `out`.
        threads: of DuckDB; the result does not depend on them.
        fresh: begin anew whatever an interrupted call left.
        watcher: is told of the stages.

    Returns:
        The store's description. `bad_rows` counts by reason what could not be used as it is.

    Raises:
        UsageError: a file or column is missing or not readable, the labels are not 0 and 1, nothing
            is usable, a split would be empty, or the memory limit is too small.
    """
    if split not in ("time", "random"):
        raise UsageError(f"--split {split}: unknown; choose time or random")
    asked = TableColumns(user=user, item=item, time=time, label=label, category=category)
    relation, columns = _relation(path, asked)
    with preparing(
        out,
        inputs=[path],
        options={
            **{f"--{field}": column for field, column in vars(columns).items()},
            "--label-threshold": label_threshold,
            "--split": split,
            "--seed": seed,
        },
        memory_limit_bytes=memory_limit_bytes,
        threads=threads,
        fresh=fresh,
        watcher=watcher,
    ) as preparation:
        space, builder = preparation.space, preparation.builder
        space.stage(
            f"reading {path.name}", lambda: _read(space, path, relation, columns, label_threshold)
        )
        vocabulary = space.stage(
            "numbering ids",
            lambda: _number_ids(space, path, with_category=columns.category is not None),
        )
        detail, rows = space.stage("joining", lambda: _make_impressions(space, path, split, seed))

        def write_tables() -> None:
            builder.add_users(space.table(_USERS))
            builder.add_ads(space.table(_ITEMS))

        space.stage("users and items", write_tables)
        write_store(space, builder, users=vocabulary["user"], rows=rows, utc_offset_s=0)
        positive = "label 1" if label_threshold is None else f"{label} >= {label_threshold:g}"
        return preparation.finish(
            name=path.stem,
            source=f"prepare --table {path.name}",
            vocabulary=vocabulary,
            rows=rows,
            split=split,
            split_detail=detail,
            history={
                "kind": "positives",
                "item": f"item of an earlier row with {positive}, numbered with the items",
                "category": "category of that row",
            },
            bad_rows=space.bad_rows,
            seed=seed,
        )


def _relation(path: Path, asked: TableColumns) -> tuple[str, TableColumns]:
    """SQL that reads the table, and the full names of the columns."""
    if path.suffix.lower() in (".parquet", ".pq"):
        names = _parquet_columns(path)
        relation = f"read_parquet({literal(str(path))})"
    else:
        header = header_line(path)
        delimiter = max(DELIMITERS, key=header.count)
        names = [column.strip().strip('"') for column in header.split(delimiter)]
        relation = csv_relation(path, names, "rows", delimiter=delimiter, quote='"')
    found = {
        field: None if column is None else _full_name(column, names)
        for field, column in vars(asked).items()
    }
    check_columns(path, names, [column for column in found.values() if column is not None])
    return relation, TableColumns(**found)  # type: ignore[arg-type]


def _full_name(column: str, names: Sequence[str]) -> str:
    """`rating` for `rating`, else the only `rating:float`; `column` itself where there is none."""
    typed = [full for full in names if full.partition(":")[0] == column]
    return typed[0] if column not in names and len(typed) == 1 else column


def _parquet_columns(path: Path) -> list[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return list(pq.read_schema(path).names)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file") from None
    except (OSError, pa.ArrowException) as error:
        raise UsageError(f"{path}: no readable Parquet file: {first_line(error)}") from None


def _read(
    space: Workspace, path: Path, relation: str, columns: TableColumns, threshold: float | None
) -> None:
    """View `usable`: raw_user, raw_item, raw_category, time_s, label."""
    text = {field: _text(column) for field, column in vars(columns).items() if column is not None}
    number = f"try_cast({text['label']} AS DOUBLE)"
    flag = f"try_cast({text['label']} AS BOOLEAN)::INTEGER"
    expressions = {
        "raw_user": f"nullif({text['user']}, '')",
        "raw_item": f"nullif({text['item']}, '')",
        "raw_category": f"nullif({text.get('category', 'NULL::VARCHAR')}, '')",
        "time_s": _time_s(space, relation, text["time"]),
        "rating": f"coalesce({number}, {flag})",
    }
    unusable = [
        ("raw_user IS NULL", f"{columns.user} is empty"),
        ("raw_item IS NULL", f"{columns.item} is empty"),
        ("time_s IS NULL", f"{columns.time} is no time"),
        (f"time_s < 0 OR time_s > {LATEST_TIME_S}", f"{columns.time} is before 1970 or after 2038"),
        ("rating IS NULL OR isnan(rating)", f"{columns.label} is no number"),
    ]
    text_file = not relation.startswith("read_parquet")
    read_rows(
        space,
        "rated_rows",
        path.name,
        relation,
        expressions,
        unusable,
        expected_rows=estimated_lines(path) if text_file else 0,
    )
    if text_file:
        count_rejected(space, "rows", path.name)
    odd = "SELECT rating FROM rated_rows WHERE rating NOT IN (0, 1) LIMIT 1"
    if threshold is None and (values := space.rows(odd)):
        raise UsageError(
            f"{path}: column '{columns.label}' holds {values[0][0]:g}, but labels are 0 and 1;"
            " say with --label-threshold from which value on a row is positive"
        )
    positive = "rating = 1" if threshold is None else f"rating >= {threshold!r}"
    space.run(
        "CREATE VIEW usable AS SELECT raw_user, raw_item, raw_category, time_s::BIGINT AS time_s,"
        f" ({positive})::INTEGER AS label FROM rated_rows"
    )


def _text(column: str) -> str:
    """SQL of a column of any type as text, without blanks around it."""
    return f"trim({name(column)}::VARCHAR)"


def _time_s(space: Workspace, relation: str, text: str) -> str:
    """SQL of Unix seconds (a DOUBLE, NULL where it is no time); the module says how it is found."""
    number = f"try_cast({text} AS DOUBLE)"
    stamp = f"epoch(try_cast({text} AS TIMESTAMPTZ))"
    numbers, stamps, median = space.rows(
        f"SELECT count({number}), count({stamp}), approx_quantile(abs({number}), 0.5)"
        f" FILTER (isfinite({number})) FROM {relation}"
    )[0]
    if stamps > numbers:
        return f"floor({stamp})"
    per_second = next(unit for limit, unit in _UNITS_PER_S if (median or 0) < limit)
    return f"CASE WHEN isfinite({number}) THEN floor({number} / {per_second}) END"


def _raw(column: str) -> str:
    """SQL of an id to sort by: numbers first, in numeric order."""
    order = f"coalesce(try_cast({column} AS HUGEINT), {2**126})"
    return f"CASE WHEN {column} IS NOT NULL THEN {{'number': {order}, 'text': {column}}} END"


def _number_ids(space: Workspace, path: Path, *, with_category: bool) -> dict[str, int]:
    """Tables `user_ids`, `item_ids` and `category_ids` of raw {number, text} and id."""
    if not space.value("SELECT count(*) FROM usable"):
        reasons = "; ".join(f"{count} x {reason}" for reason, count in space.bad_rows.items())
        raise UsageError(f"{path}: no usable row: {reasons or 'it has no rows'}")
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
    """Tables `impressions` and `events`; returns the split in words and its rows per side."""
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
        cut = _time_cut(space)
        train, detail = f"time_s < {cut}", f"the latest 15 % validate, from Unix time {cut}"
    space.run(f"CREATE VIEW impressions AS SELECT * EXCLUDE (hash), {train} AS train FROM rated")
    space.run(
        "CREATE VIEW events AS SELECT user, time_s, item, category FROM rated WHERE label = 1"
    )
    rows = check_split(space, split, path)
    total = sum(rows.values())
    space.advance(total, total)
    return detail, rows


def _time_cut(space: Workspace) -> Any:
    """The time from which on the latest 15 % of the rows are."""
    count = space.value("SELECT count(*) FROM rated")
    train = min(int(count * (1 - VALIDATION_SHARE)), count - 1)
    return space.value(f"SELECT time_s FROM rated ORDER BY time_s LIMIT 1 OFFSET {train}")
