"""The steps that every ingest shares: check columns, count rows, map ids, split, make histories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ctrkit.core.errors import UsageError
from ctrkit.core.units import format_value
from ctrkit.ctr.data.builder import StoreBuilder
from ctrkit.ctr.data.store import FIRST_REAL_ID, UNKNOWN_ID
from ctrkit.ctr.data.workspace import SORTED_SHARE, Workspace, literal

Int64Array = npt.NDArray[np.int64]

HOUR_S = 3600
DAY_S = 24 * HOUR_S
LATEST_TIME_S = 2**31 - 1  # times are kept as int32
RANDOM_TRAIN_SHARE = 14 / 17  # of the original run: 1,052,081 of 1,277,527 rows
_OFFSETS_FILE = "offsets.npy"
_SAMPLE_BYTES = 1 << 20
_COUNTED_BYTES = 16 << 20
_MONDAY_SHIFT = 3  # Unix time starts on a Thursday
_SIDES = {"train": "train", "validation": "NOT train"}  # in the order of the store


class Slices(NamedTuple):
    """Events in CSR form: the events of user u are `offsets[u]` to `offsets[u + 1]`, oldest first.

    `offsets` is int64 (users + 1,), `time_s` int32 (events,), mapped from disk.
    """

    offsets: Int64Array
    time_s: npt.NDArray[np.int32]


class Unusable(NamedTuple):
    """A reason why a row cannot be used: SQL on the view's columns, and the column to blame."""

    test: str
    column: str
    words: str


class RowCounts(NamedTuple):
    """Row counts of a file: read, and dropped by reason, with a sample of each reason."""

    rows: int
    dropped: dict[str, int]
    first: dict[str, str]


def read_rows(
    space: Workspace,
    table: str,
    relation: str,
    columns: Mapping[str, str],
    unusable: Sequence[Unusable],
    *,
    expected_rows: int = 0,
) -> RowCounts:
    """Make a view `table` of the usable rows of a relation, and count the others by reason.

    Args:
        space: the database.
        table: name of the view; the table `{table}_read` has all rows.
        relation: SQL after FROM.
        columns: an SQL expression per column of the view.
        unusable: reasons; the first that holds is counted.
        expected_rows: approximate number of rows, for the progress.
    """
    space.advance(0, expected_rows)
    cases = " ".join(f"WHEN {each.test} THEN {i}" for i, each in enumerate(unusable))
    blamed = {each.column: f"blamed_{i}" for i, each in enumerate(unusable)}
    samples = " ".join(f"WHEN {i} THEN {blamed[each.column]}" for i, each in enumerate(unusable))
    cells = {alias: cell(column) for column, alias in blamed.items()}
    chosen = ", ".join(f"{sql} AS {name}" for name, sql in {**columns, **cells}.items())
    space.run(
        f"CREATE TABLE {table}_read AS SELECT {', '.join(columns)}, bad,"
        f" CASE bad {samples} END AS sample"
        f" FROM (SELECT *, (CASE {cases} END)::UTINYINT AS bad"
        f" FROM (SELECT {chosen} FROM {relation}))"
    )
    unused = f"SELECT bad, count(*), min(sample) FROM {table}_read WHERE bad IS NOT NULL"
    dropped, first = {}, {}
    for number, count, sample in space.rows(f"{unused} GROUP BY ALL ORDER BY ALL"):
        reason = f"{unusable[number].column} {unusable[number].words}"
        dropped[reason] = int(count)
        first[reason] = format_value(sample or "")
    space.run(
        f"CREATE VIEW {table} AS SELECT * EXCLUDE (bad, sample) FROM {table}_read WHERE bad IS NULL"
    )
    read = int(space.value(f"SELECT count(*) FROM {table}_read"))
    space.advance(read, read)
    return RowCounts(read, dropped, first)


def rejected_lines(space: Workspace, table: str) -> RowCounts:
    """The lines of a CSV file that could not be split into its columns, all of them dropped."""
    dropped, first = {}, {}
    for kind, count, line, text in space.rows(
        "SELECT kind, count(*), min(line), arg_min(text, line) FROM"
        " (SELECT min(error_type::VARCHAR) AS kind, min(line) AS line, any_value(csv_line) AS text"
        f" FROM {table}_rejected_errors GROUP BY line_byte_position) GROUP BY ALL ORDER BY ALL"
    ):
        dropped[f"line with {kind.lower()}"] = int(count)
        first[f"line with {kind.lower()}"] = f"line {line:,}: {format_value(text or '')}"
    return RowCounts(sum(dropped.values()), dropped, first)


def count_lines(path: Path) -> tuple[int, int]:
    """How many lines a text file has that are not blank, and how many blank ones."""
    lines = blank = 0
    before = np.frombuffer(b"\n", np.uint8)  # as if a line had ended before the file
    with path.open("rb") as file:
        while block := file.read(_COUNTED_BYTES):
            bytes_ = np.concatenate([before, np.frombuffer(block, np.uint8)])
            ends = np.flatnonzero(bytes_ == ord("\n"))
            gaps = np.diff(ends)
            returns = bytes_[ends[1:] - 1] == ord("\r")
            blank += int(((gaps == 1) | ((gaps == 2) & returns)).sum())
            lines += len(gaps)
            before = bytes_[ends[-1] :]
    rest = bytes(before[1:].tobytes()).strip(b"\r")
    return lines - blank + bool(rest), blank


def number_ids(space: Workspace, table: str, values: str) -> int:
    """Make a table (raw, id) of the distinct values of a query's column `raw` without NULL.

    Ids are dense from 2 in ascending order of the raw value, so that they do not depend on the
    order of rows or on threads. Returns the vocabulary's size, 0 and 1 included.
    """
    space.run(
        f"CREATE TABLE {table} AS SELECT raw, (row_number() OVER (ORDER BY raw)"
        f" + {FIRST_REAL_ID - 1})::INTEGER AS id"
        f" FROM (SELECT DISTINCT raw FROM ({values}) WHERE raw IS NOT NULL)"
    )
    return FIRST_REAL_ID + int(space.value(f"SELECT count(*) FROM {table}"))


def name(text: str) -> str:
    """A text as an SQL identifier."""
    return '"' + text.replace('"', '""') + '"'


def cell(column: str) -> str:
    """SQL for a text column of a file, without blanks around its value.

    The trim is needed: DuckDB moves a bare `try_cast` into its CSV reader, which then rejects the
    whole line instead of giving NULL.
    """
    return f"trim({name(column)})"


def header_line(path: Path) -> str:
    """The first line of a text file, without byte-order mark and line end.

    Raises:
        UsageError: no such file, not readable, or empty.
    """
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            line = file.readline(1 << 20).rstrip("\r\n")
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    if not line.strip():
        raise UsageError(f"{path}: is empty, its first line must name the columns")
    return line


def estimated_lines(path: Path) -> int:
    """Approximate number of lines in a text file, estimated from its first MiB."""
    with path.open("rb") as file:
        head = file.read(_SAMPLE_BYTES)
    return round(path.stat().st_size / max(1, len(head)) * head.count(b"\n"))


def check_columns(path: Path, columns: Sequence[str], required: Sequence[str]) -> None:
    """Check that a file has the required columns.

    Raises:
        UsageError: one is missing; the message names the file, the column, and those that exist.
    """
    for column in required:
        if column not in columns:
            raise UsageError(f"{path}: no column '{column}'; its columns are {', '.join(columns)}")
    if len(set(columns)) < len(columns):
        twice = next(column for column in columns if columns.count(column) > 1)
        raise UsageError(f"{path}: two columns are called '{twice}'; rename one")


def csv_relation(path: Path, columns: Sequence[str], rejected: str) -> str:
    """SQL that reads a CSV file with a header line and no quotes, every column as text.

    Lines that do not split into the columns go to the table `{rejected}_rejected_errors`.
    """
    types = ", ".join(f"{literal(column)}: 'VARCHAR'" for column in columns)
    return (
        f"read_csv({literal(str(path))}, columns = {{{types}}}, header = true,"
        " delim = ',', quote = '', escape = '',"
        f" auto_detect = false, store_rejects = true, rejects_limit = 0,"
        f" rejects_scan = '{rejected}_rejected_scans',"
        f" rejects_table = '{rejected}_rejected_errors')"
    )


def hash_sql(seed: int, *expressions: str) -> str:
    """SQL for 64 pseudo-random bits of values: md5, the same in every version of DuckDB."""
    return f"md5_number_lower(concat_ws(':', {seed}, {', '.join(expressions)}))"


def random_cut(space: Workspace, seed: int) -> str:
    """SQL that splits the table `rated` by its random column `hash`: 14/17 of the rows train.

    A row's side depends only on its values and the seed, so equal rows share a side. Returns the
    split in words; `train` is the SQL condition of `make_impressions`.
    """
    count = space.value("SELECT count(*) FROM rated")
    train = min(max(round(count * RANDOM_TRAIN_SHARE), 1), max(count - 1, 0))
    cut = space.rows(f"SELECT hash FROM rated ORDER BY hash LIMIT 1 OFFSET {train}")
    return f"hash < {cut[0][0]}" if cut else "true"


def check_split(space: Workspace, split: str, source: Path) -> dict[str, int]:
    """The number of rows of `impressions` per split.

    Raises:
        UsageError: a split has no rows.
    """
    rows = {
        side: int(space.value(f"SELECT count(*) FROM impressions WHERE {condition}"))
        for side, condition in _SIDES.items()
    }
    for side, count in rows.items():
        if not count:
            raise UsageError(
                f"{source}: the {split} split leaves {side} without rows; {_way_to_split(space)}"
            )
    return rows


def _way_to_split(space: Workspace) -> str:
    """Advice if a side of the split has no rows."""
    different = "SELECT DISTINCT user, item, time_s, label FROM rated LIMIT 2"
    if int(space.value(f"SELECT count(*) FROM ({different})")) > 1:
        return "use --split random"
    count = int(space.value("SELECT count(*) FROM rated"))
    have = "one usable row" if count == 1 else f"{count:,} usable rows, all the same"
    are = "is" if count == 1 else "are"
    return f"there {are} {have}, and training and validation need different ones"


def local_clock(time_s: Int64Array, utc_offset_s: int) -> tuple[Int64Array, Int64Array]:
    """Hour (0..23) and weekday (Monday 0 .. Sunday 6) of Unix times, in a fixed time zone."""
    local_s = time_s + utc_offset_s
    return local_s // HOUR_S % 24, (local_s // DAY_S + _MONDAY_SHIFT) % 7


def write_store(
    space: Workspace,
    builder: StoreBuilder,
    *,
    users: int,
    rows: Mapping[str, int],
    utc_offset_s: int,
) -> None:
    """Run the stages that write the tables `events` and `impressions` into the store.

    Args:
        space: the database.
        builder: builds the store.
        users: size of the users' vocabulary.
        rows: impressions per split.
        utc_offset_s: offset of the time zone for hours and weekdays of impressions.
    """
    space.stage("histories", lambda: _write_events(space, builder, users))
    for side, condition in _SIDES.items():

        def write(condition: str = condition, count: int = rows[side]) -> None:
            _write_impressions(space, builder, condition, count, utc_offset_s)

        space.stage(f"{side} impressions", write)


def _write_events(space: Workspace, builder: StoreBuilder, users: int) -> None:
    """Stream the table `events` (user, item, category, time_s) into the store in CSR order."""
    total = int(space.value("SELECT count(*) FROM events"))
    counts = np.zeros(users, np.int64)
    done = 0
    for batch in space.stream(
        "SELECT user::INTEGER AS user, item::INTEGER AS item, category::INTEGER AS category,"
        " time_s::INTEGER AS time_s FROM events ORDER BY user, time_s, item, category"
    ):
        user, item, category, time_s = (column.to_numpy() for column in batch.columns)
        builder.add_behaviors(item, category, time_s)
        found = np.bincount(user - user[0])
        counts[user[0] : user[0] + len(found)] += found
        done += len(user)
        space.advance(done, total, begin=SORTED_SHARE)
    np.save(space.folder / _OFFSETS_FILE, np.concatenate([[0], np.cumsum(counts)]))


def history_bounds(
    slices: Slices, user: Int64Array, time_s: Int64Array
) -> tuple[Int64Array, Int64Array]:
    """Where each impression's history begins and ends (exclusive) among the events.

    A history is what the user did strictly before the impression; an event in the same second does
    not count. One binary search for all rows at once, each in its user's slice.

    Args:
        slices: the events.
        user: int64 (n,), user ids.
        time_s: int64 (n,), Unix seconds of the impressions.

    Returns:
        Begin and end, each int64 (n,).
    """
    begin, low, high = slices.offsets[user], slices.offsets[user], slices.offsets[user + 1]
    while (searching := np.flatnonzero(low < high)).size:
        middle = (low[searching] + high[searching]) // 2
        earlier = slices.time_s[middle] < time_s[searching]
        low[searching[earlier]] = middle[earlier] + 1
        high[searching[~earlier]] = middle[~earlier]
    return begin, low


def _write_impressions(
    space: Workspace, builder: StoreBuilder, condition: str, rows: int, utc_offset_s: int
) -> None:
    """Stream a split of the table `impressions` into the store, ordered by user and time.

    Its columns are user, item, category, label, time_s and train. The order by user keeps the
    search for histories local on disk, and does not depend on the number of threads.
    """
    slices = Slices(np.load(space.folder / _OFFSETS_FILE), builder.behavior_times())
    done = 0
    for batch in space.stream(
        "SELECT user::BIGINT, item::BIGINT, category::BIGINT, label::BIGINT, time_s::BIGINT"
        f" FROM impressions WHERE {condition} ORDER BY user, time_s, item, category, label"
    ):
        user, item, category, label, time_s = (column.to_numpy() for column in batch.columns)
        hour, weekday = local_clock(time_s, utc_offset_s)
        begin, end = history_bounds(slices, user, time_s)
        packed = np.stack([user, item, category, hour, weekday, label, begin, end], axis=1)
        builder.add_impressions(packed.astype(np.int32), time_s.astype(np.int32))
        done += len(user)
        space.advance(done, rows, begin=SORTED_SHARE)


def known_or_unknown(expression: str) -> str:
    """SQL for an id from a join; 1 (unknown) if the join found none."""
    return f"coalesce({expression}, {UNKNOWN_ID})"
