"""What every ingest shares: DuckDB within limits, checked columns, splits, histories, streaming."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ctrkit.data.builder import StoreBuilder
from ctrkit.data.store import FIRST_REAL_ID, UNKNOWN_ID
from ctrkit.errors import UsageError
from ctrkit.units import format_bytes

if TYPE_CHECKING:
    import pyarrow as pa

OnProgress = Callable[[str, float], None]
"""`on_progress("histories", 0.4)`: what is being done, and the share of the whole that is done."""

Int64Array = npt.NDArray[np.int64]

HOUR_S = 3600
DAY_S = 24 * HOUR_S
LATEST_TIME_S = 2**31 - 1  # times are kept as int32
RANDOM_TRAIN_SHARE = 14 / 17  # of the original run: 1,052,081 of 1,277,527 rows
_CHUNK_ROWS = 1 << 17
_MONDAY_SHIFT = 3  # Unix time starts on a Thursday


class Slices(NamedTuple):
    """Events in CSR form: user u has those from `offsets[u]` to `offsets[u + 1]`, oldest first.

    `offsets` is int64 (users + 1,), `time_s` int32 (events,), mapped from disk.
    """

    offsets: Int64Array
    time_s: npt.NDArray[np.int32]


class Workspace:
    """A DuckDB database in a folder that is removed at the end; get one with `workspace`.

    `bad_rows` collects, by reason, the input rows that could not be used as they are.
    """

    def __init__(self, connection: Any, folder: Path, on_progress: OnProgress | None) -> None:
        self.connection = connection
        self.folder = folder
        self.tell = on_progress or (lambda _text, _share: None)
        self.bad_rows: dict[str, int] = {}

    def run(self, sql: str) -> None:
        """Execute a statement."""
        self.connection.execute(sql)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """All rows of a small result."""
        return list(self.connection.execute(sql).fetchall())

    def value(self, sql: str) -> Any:
        """The only value of a result."""
        return self.rows(sql)[0][0]

    def stream(self, sql: str) -> pa.RecordBatchReader:
        """The record batches of a result of any size; no other query while they are read."""
        relation = self.connection.sql(sql)
        reader = getattr(relation, "to_arrow_reader", None) or relation.fetch_arrow_reader
        return reader(_CHUNK_ROWS)

    def count_bad(self, reason: str, count: int) -> None:
        """Add rows to the count of a reason; nothing is noted for 0."""
        if count:
            self.bad_rows[reason] = self.bad_rows.get(reason, 0) + int(count)

    def read(
        self,
        table: str,
        file: str,
        relation: str,
        columns: Mapping[str, str],
        unusable: Sequence[tuple[str, str]],
    ) -> None:
        """Make a view `table` of the usable rows of a relation, and count the others by reason.

        Args:
            table: the view's name; all rows are in the table `{table}_read`.
            file: what the counts name as their source.
            relation: SQL after FROM.
            columns: SQL expression per column of the view.
            unusable: (SQL condition on the columns, reason); the first that holds is counted.
        """
        cases = " ".join(f"WHEN {test} THEN {i}" for i, (test, _) in enumerate(unusable))
        chosen = ", ".join(f"{sql} AS {name}" for name, sql in columns.items())
        self.run(
            f"CREATE TABLE {table}_read AS SELECT *, (CASE {cases} END)::UTINYINT AS bad"
            f" FROM (SELECT {chosen} FROM {relation})"
        )
        unused = f"SELECT bad, count(*) FROM {table}_read WHERE bad IS NOT NULL"
        for number, count in self.rows(f"{unused} GROUP BY ALL ORDER BY ALL"):
            self.count_bad(f"{file}: {unusable[number][1]}", count)
        self.run(
            f"CREATE VIEW {table} AS SELECT * EXCLUDE (bad) FROM {table}_read WHERE bad IS NULL"
        )

    def count_rejected(self, table: str, file: str) -> None:
        """Count the lines of a CSV file that could not be split into its columns."""
        for kind, count in self.rows(
            f"SELECT error_type::VARCHAR, count(DISTINCT line) FROM {table}_rejected_errors"
            " GROUP BY ALL ORDER BY ALL"
        ):
            self.count_bad(f"{file}: line with {kind.lower()}", count)

    def number_ids(self, table: str, values: str) -> int:
        """Make a table (raw, id) of the distinct values of a query's column `raw` without NULL.

        Ids are dense from 2 in ascending order of the raw value, so that they do not depend on the
        order of rows or on threads. Returns the vocabulary's size, 0 and 1 included.
        """
        self.run(
            f"CREATE TABLE {table} AS SELECT raw, (row_number() OVER (ORDER BY raw)"
            f" + {FIRST_REAL_ID - 1})::INTEGER AS id"
            f" FROM (SELECT DISTINCT raw FROM ({values}) WHERE raw IS NOT NULL)"
        )
        return FIRST_REAL_ID + int(self.value(f"SELECT count(*) FROM {table}"))


@contextmanager
def workspace(
    folder: Path, *, memory_limit_bytes: int, threads: int, on_progress: OnProgress | None
) -> Iterator[Workspace]:
    """A database below `folder` that keeps within a memory limit and spills to disk.

    Raises:
        UsageError: DuckDB is not installed, the limit is too small, a disk is full or unreadable.
    """
    duckdb = _duckdb()
    work = folder / "work"
    work.mkdir()
    connection = duckdb.connect(str(work / "ingest.duckdb"))
    try:
        connection.execute(f"SET memory_limit = '{memory_limit_bytes} B'")
        connection.execute(f"SET temp_directory = {literal(str(work / 'spilled'))}")
        connection.execute(f"SET threads = {threads}")
        connection.execute("SET preserve_insertion_order = false")
        connection.execute("SET enable_progress_bar = false")
        connection.execute("SET TimeZone = 'UTC'")
        yield Workspace(connection, work, on_progress)
    except duckdb.OutOfMemoryException as error:
        raise UsageError(
            f"--memory-limit {format_bytes(memory_limit_bytes)} is too small for this data:"
            f" {first_line(error)}; give more"
        ) from None
    except duckdb.IOException as error:
        raise UsageError(f"reading the source failed: {first_line(error)}") from None
    except RuntimeError as error:
        # what DuckDB makes of Ctrl-C while a query runs
        if "interrupted" in str(error):
            raise KeyboardInterrupt from None
        raise
    finally:
        connection.close()
        shutil.rmtree(work, ignore_errors=True)


def _duckdb() -> Any:
    try:
        import duckdb
    except ImportError:
        raise UsageError(
            "'ctrkit data prepare' needs DuckDB: pip install 'ctrkit[prepare]'"
        ) from None
    return duckdb


def first_line(error: Exception) -> str:
    """The first line of an error's message."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def literal(text: str) -> str:
    """A text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def name(text: str) -> str:
    """A text as an SQL identifier."""
    return '"' + text.replace('"', '""') + '"'


def cell(column: str) -> str:
    """SQL of a column read from a file as text, without blanks around it.

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


def check_columns(path: Path, columns: Sequence[str], required: Sequence[str]) -> None:
    """Check that a file has the columns that are needed.

    Raises:
        UsageError: naming the file, the first column that lacks and those that exist.
    """
    for column in required:
        if column not in columns:
            raise UsageError(f"{path}: no column '{column}'; its columns are {', '.join(columns)}")
    if len(set(columns)) < len(columns):
        twice = next(column for column in columns if columns.count(column) > 1)
        raise UsageError(f"{path}: two columns are called '{twice}'; rename one")


def csv_relation(
    path: Path, columns: Sequence[str], rejected: str, *, delimiter: str = ",", quote: str = ""
) -> str:
    """SQL that reads a CSV file with a header line, every column as text, nothing guessed.

    Lines that do not split into the columns go to the table `{rejected}_rejected_errors`.
    """
    types = ", ".join(f"{literal(column)}: 'VARCHAR'" for column in columns)
    return (
        f"read_csv({literal(str(path))}, columns = {{{types}}}, header = true,"
        f" delim = {literal(delimiter)}, quote = {literal(quote)}, escape = {literal(quote)},"
        f" auto_detect = false, store_rejects = true, rejects_limit = 0,"
        f" rejects_scan = '{rejected}_rejected_scans',"
        f" rejects_table = '{rejected}_rejected_errors')"
    )


def hash_sql(seed: int, *expressions: str) -> str:
    """SQL for 64 pseudo-random bits of values: md5, so that they hold for every version."""
    return f"md5_number_lower(concat_ws(':', {seed}, {', '.join(expressions)}))"


def random_cut(space: Workspace, seed: int) -> str:
    """Split the table `rated`, whose column `hash` is random: 14/17 of the rows go to train.

    A row's side depends on its values and the seed only; equal rows share a side. Returns the
    split in words; `train` is the SQL condition of `make_impressions`.
    """
    count = space.value("SELECT count(*) FROM rated")
    train = min(max(round(count * RANDOM_TRAIN_SHARE), 1), max(count - 1, 0))
    cut = space.rows(f"SELECT hash FROM rated ORDER BY hash LIMIT 1 OFFSET {train}")
    return f"hash < {cut[0][0]}" if cut else "true"


def check_split(space: Workspace, split: str, source: Path) -> dict[str, int]:
    """Rows of `impressions` per split.

    Raises:
        UsageError: one of them has none.
    """
    rows = {
        side: int(space.value(f"SELECT count(*) FROM impressions WHERE {condition}"))
        for side, condition in (("train", "train"), ("validation", "NOT train"))
    }
    for side, count in rows.items():
        if not count:
            advice = "use --split random" if split == "time" else "it needs at least two rows"
            raise UsageError(f"{source}: the {split} split leaves {side} without rows; {advice}")
    return rows


def local_clock(time_s: Int64Array, utc_offset_s: int) -> tuple[Int64Array, Int64Array]:
    """Hour (0..23) and weekday (Monday 0 .. Sunday 6) of Unix times, in a fixed time zone."""
    local_s = time_s + utc_offset_s
    return local_s // HOUR_S % 24, (local_s // DAY_S + _MONDAY_SHIFT) % 7


def write_events(space: Workspace, builder: StoreBuilder, user_vocabulary: int) -> Slices:
    """Stream the table `events` (user, item, category, time_s) into the store in CSR order."""
    total = int(space.value("SELECT count(*) FROM events"))
    counts = np.zeros(user_vocabulary, np.int64)
    path, done = space.folder / "event_time_s", 0
    with path.open("wb") as file:
        for batch in space.stream(
            "SELECT user::INTEGER AS user, item::INTEGER AS item, category::INTEGER AS category,"
            " time_s::INTEGER AS time_s FROM events ORDER BY user, time_s, item, category"
        ):
            user, item, category, time_s = (column.to_numpy() for column in batch.columns)
            builder.add_behaviors(item, category, time_s)
            file.write(np.ascontiguousarray(time_s, np.int32).data)
            users, events = np.unique(user, return_counts=True)
            counts[users] += events
            done += len(user)
            space.tell("histories", 0.7 + 0.15 * done / total)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    times = np.memmap(path, np.int32, "r") if done else np.empty(0, np.int32)
    return Slices(offsets, times)


def history_bounds(
    slices: Slices, user: Int64Array, time_s: Int64Array
) -> tuple[Int64Array, Int64Array]:
    """Where each impression's history begins and ends (exclusive) among the events.

    A history is what the user did strictly before the impression: an event of the same second
    is not in it. Binary search of all rows at once, each in its user's slice.

    Args:
        slices: the events.
        user: int64 (n,), user ids.
        time_s: int64 (n,), Unix seconds of the impressions.
    """
    begin, low, high = slices.offsets[user], slices.offsets[user], slices.offsets[user + 1]
    while (searching := np.flatnonzero(low < high)).size:
        middle = (low[searching] + high[searching]) // 2
        earlier = slices.time_s[middle] < time_s[searching]
        low[searching[earlier]] = middle[earlier] + 1
        high[searching[~earlier]] = middle[~earlier]
    return begin, low


def write_impressions(
    space: Workspace, builder: StoreBuilder, slices: Slices, *, rows: int, utc_offset_s: int
) -> None:
    """Stream the table `impressions` into the store: train, then validation; by user and time.

    Its columns are user, item, category, label, time_s and train. The order by user keeps the
    search for histories local on disk, and it does not depend on threads.
    """
    done = 0
    for side in ("train", "NOT train"):
        for batch in space.stream(
            "SELECT user::BIGINT, item::BIGINT, category::BIGINT, label::BIGINT, time_s::BIGINT"
            f" FROM impressions WHERE {side} ORDER BY user, time_s, item, category, label"
        ):
            user, item, category, label, time_s = (column.to_numpy() for column in batch.columns)
            hour, weekday = local_clock(time_s, utc_offset_s)
            begin, end = history_bounds(slices, user, time_s)
            packed = np.stack([user, item, category, hour, weekday, label, begin, end], axis=1)
            builder.add_impressions(packed.astype(np.int32), time_s.astype(np.int32))
            done += len(user)
            space.tell("impressions", 0.85 + 0.15 * done / rows)


def known_or_unknown(expression: str) -> str:
    """SQL: an id from a join, 1 (unknown) where there was none."""
    return f"coalesce({expression}, {UNKNOWN_ID})"
