"""A DuckDB database with limits, whose finished stages survive the process that ran them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ctrkit.core.errors import UsageError
from ctrkit.core.units import format_bytes
from ctrkit.ctr.data.stage_progress import StageClock, StageProgress, Watcher

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")

DATABASE = "ingest.duckdb"
_SPILLED = "spilled"
_CHUNK_ROWS = 1 << 17
_LOOK_S = 0.2
#: in a stage that streams a sorted result, the share of its time before the first row
SORTED_SHARE = 0.7
#: these optimizers think a CSV file is tiny and hash all of it; joins here name the smaller side
#: last
_DISABLED_OPTIMIZERS = "join_order,build_side_probe_side"


class Workspace:
    """The database of a preparation, and its stages; get one from `workspace`.

    All queries run in one other thread, so that this thread can report their progress and react to
    Ctrl-C at once.

    Attributes:
        bad_rows: number of input rows that could not be used as they are, by reason.
        saved: what `save` returned at the end of the last finished stage.
        save: called at the end of each stage, before it counts as finished. It flushes what the
            stage wrote elsewhere, and returns what is needed to continue from there.
    """

    def __init__(self, connection: Any, folder: Path, watcher: Watcher | None = None) -> None:
        self.connection = connection
        self.folder = folder
        self.watcher = watcher or Watcher()
        self.bad_rows: dict[str, int] = {}
        self.saved: dict[str, int] = {}
        self.save: Callable[[], Mapping[str, int]] = dict
        self._thread = ThreadPoolExecutor(1, "duckdb")
        self._clock = StageClock()
        self._query_share = 1.0  # share of the stage that the running query is
        self._finished: dict[str, tuple[Any, StageProgress]] = {}
        self._read_finished()

    def _read_finished(self) -> None:
        self.run(
            "CREATE TABLE IF NOT EXISTS stages (number INTEGER, name VARCHAR, value VARCHAR,"
            " bad_rows VARCHAR, saved VARCHAR, rows BIGINT, elapsed_s DOUBLE, cpu_s DOUBLE)"
        )
        for _, name, value, bad, saved, rows, elapsed_s, cpu_s in self.rows(
            "SELECT * FROM stages ORDER BY number"
        ):
            self.bad_rows, self.saved = json.loads(bad), json.loads(saved)
            self._finished[name] = (
                json.loads(value),
                StageProgress(
                    name=name,
                    state="skipped",
                    share=1.0,
                    rows=rows,
                    elapsed_s=elapsed_s,
                    cpu_s=cpu_s,
                ),
            )

    @property
    def finished(self) -> tuple[StageProgress, ...]:
        """The finished stages, in order."""
        return tuple(progress for _, progress in self._finished.values())

    def stage(self, name: str, work: Callable[[], Any]) -> Any:
        """Do a piece of work whole or not at all, or skip it if it was done before.

        Its changes to the database and the count of bad rows become final together, at its end.

        Args:
            name: unique within a preparation.
            work: returns a JSON value.

        Returns:
            The value of `work`, from now or from the earlier call.
        """
        if name in self._finished:
            value, progress = self._finished[name]
            self.watcher.stage(progress)
            return value
        self.watcher.stage(self._clock.begin(name))
        self.run("BEGIN")
        value = work()
        self.saved = dict(self.save())
        done = self._clock.end()
        texts = [json.dumps(entry) for entry in (value, self.bad_rows, self.saved)]
        self._await(
            lambda: self.connection.execute(
                "INSERT INTO stages VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [len(self._finished), name, *texts, done.rows, done.elapsed_s, done.cpu_s],
            )
        )
        self.run("COMMIT")
        self._finished[name] = value, replace(done, state="skipped")
        self.watcher.stage(done)
        return value

    def advance(self, rows: int, of_rows: int, *, begin: float = 0.0) -> None:
        """Report how many rows of this stage are done, of how many; both may be estimates.

        `begin` is the share of the stage that was done before the first row.
        """
        self.watcher.stage(self._clock.advance(rows, of_rows, begin=begin))

    def _await(self, call: Callable[[], T]) -> T:
        """The result of a call in the database's thread; reports progress meanwhile."""
        future = self._thread.submit(call)
        try:
            while not wait([future], _LOOK_S).done:
                self._look()
        except BaseException:
            while not wait([future], _LOOK_S / 2).done:
                self.connection.interrupt()
            raise
        return future.result()

    def _look(self) -> None:
        """Report the query's progress, if it knows it; it never decreases."""
        progress = self._clock.query(self.connection.query_progress(), self._query_share)
        if progress is not None:
            self.watcher.stage(progress)

    def run(self, sql: str) -> None:
        """Execute a statement."""
        self._await(lambda: self.connection.execute(sql))

    def insert(self, sql: str, block: pa.Table) -> None:
        """Execute a statement that reads the table `block`."""

        def work() -> None:
            self.connection.register("block", block)
            self.connection.execute(sql)
            # after an error this connection can execute nothing
            self.connection.unregister("block")

        self._await(work)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """All rows of a small result."""
        return self._await(lambda: list(self.connection.execute(sql).fetchall()))

    def value(self, sql: str) -> Any:
        """The only value of a result."""
        return self.rows(sql)[0][0]

    def stream(self, sql: str) -> Iterator[pa.RecordBatch]:
        """The record batches of a sorted result of any size; run no other query meanwhile."""
        reader = self._await(lambda: self._reader(sql))
        self._query_share = SORTED_SHARE
        try:
            while (batch := self._await(lambda: next(reader, None))) is not None:
                yield batch
        finally:
            self._query_share = 1.0

    def table(self, sql: str) -> pa.Table:
        """A result that fits into memory."""
        return self._await(lambda: self._reader(sql).read_all())

    def _reader(self, sql: str) -> pa.RecordBatchReader:
        relation = self.connection.sql(sql)
        reader = getattr(relation, "to_arrow_reader", None) or relation.fetch_arrow_reader
        return reader(_CHUNK_ROWS)

    def count_bad(self, reason: str, count: int) -> None:
        """Add rows to the count of a reason; 0 adds nothing."""
        if count:
            self.bad_rows[reason] = self.bad_rows.get(reason, 0) + int(count)

    def close(self) -> None:
        """End the thread and close the database; an unfinished stage is rolled back."""
        self._thread.shutdown()
        self.connection.close()


@contextmanager
def workspace(
    folder: Path, *, memory_limit_bytes: int, threads: int, watcher: Watcher | None = None
) -> Iterator[Workspace]:
    """Open or make the database in a folder, with a memory limit.

    Raises:
        UsageError: DuckDB is not installed.
        LimitError: the memory limit is too small, the disk is full, or a file cannot be read.
    """
    duckdb = _duckdb()
    shutil.rmtree(folder / _SPILLED, ignore_errors=True)
    try:
        connection = _connect(duckdb, folder / DATABASE)
        for setting in (
            f"memory_limit = '{memory_limit_bytes} B'",
            f"temp_directory = {literal(str(folder / _SPILLED))}",
            f"threads = {threads}",
            "preserve_insertion_order = false",
            "enable_progress_bar = true",
            "enable_progress_bar_print = false",
            "TimeZone = 'UTC'",
        ):
            connection.execute(f"SET {setting}")
        with suppress(duckdb.Error):  # a version with other names for them is only slower
            connection.execute(f"SET disabled_optimizers = '{_DISABLED_OPTIMIZERS}'")
        space = Workspace(connection, folder, watcher)
        try:
            yield space
        finally:
            with suppress(duckdb.Error):
                space.close()
    except duckdb.OutOfMemoryException as error:
        raise LimitError(
            f"--memory-limit {format_bytes(memory_limit_bytes)} is too small for this data:"
            f" {first_line(error)}; give more"
        ) from None
    except _Unreadable as error:
        raise LimitError(
            f"{folder / DATABASE}: cannot be opened: {first_line(error)};"
            " the same command with --fresh starts over"
        ) from None
    except duckdb.IOException as error:
        raise LimitError(f"reading or writing failed: {first_line(error)}") from None
    except duckdb.Error as error:
        raise UsageError(
            f"DuckDB cannot read this data: {first_line(error)}; is the file damaged?"
        ) from None


class _Unreadable(Exception):
    """The file is no database, or one of another version."""


def _connect(duckdb: Any, path: Path) -> Any:
    try:
        return duckdb.connect(str(path))
    except duckdb.Error as error:
        raise _Unreadable(first_line(error)) from None


class LimitError(UsageError):
    """The data is fine: with more memory or disk, the same preparation can continue."""


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
