from __future__ import annotations

from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrkit.core.errors import UsageError
from ctrkit.ctr.data.ingest import (
    Slices,
    Unusable,
    cell,
    check_columns,
    csv_relation,
    estimated_lines,
    header_line,
    history_bounds,
    local_clock,
    number_ids,
    read_rows,
    rejected_lines,
)
from ctrkit.ctr.data.workspace import Workspace, workspace


@given(
    st.lists(st.lists(st.integers(0, 20), max_size=12), min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(0, 5), st.integers(-1, 21)), max_size=40),
)
def test_a_history_is_all_that_came_strictly_before(
    events: list[list[int]], asked: list[tuple[int, int]]
) -> None:
    by_user = [sorted(times) for times in events]
    offsets = np.cumsum([0] + [len(times) for times in by_user])
    slices = Slices(offsets, np.array([t for times in by_user for t in times], np.int32))
    rows = [(user % len(events), time_s) for user, time_s in asked]
    user = np.array([user for user, _ in rows], np.int64)
    begin, end = history_bounds(slices, user, np.array([t for _, t in rows], np.int64))
    for (number, time_s), first, last in zip(rows, begin, end, strict=True):
        before = [t for t in by_user[number] if t < time_s]
        assert first == offsets[number]
        assert list(slices.time_s[first:last]) == before


@given(st.integers(0, 2**31 - 1), st.integers(-12, 14))
def test_hour_and_weekday_are_those_of_the_time_zone(time_s: int, hours: int) -> None:
    hour, weekday = local_clock(np.array([time_s]), hours * 3600)
    local = datetime.fromtimestamp(time_s, UTC).astimezone(timezone(timedelta(hours=hours)))
    assert (hour[0], weekday[0]) == (local.hour, local.weekday())


def _space(folder: Path) -> AbstractContextManager[Workspace]:
    return workspace(folder, memory_limit_bytes=10**9, threads=1)


def test_header_line_without_mark_and_line_end(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbfuser,item\r\n1,2\r\n")
    assert header_line(path) == "user,item"


@pytest.mark.parametrize("content", [b"", b"\n1,2\n"])
def test_header_of_an_empty_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"a\.csv: is empty"):
        header_line(path)


def test_the_lines_of_a_long_file_are_estimated_from_its_head(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"1234567,9\n" * 300_000)
    assert abs(estimated_lines(path) - 300_000) < 300
    path.write_bytes(b"a\n1\n")
    assert estimated_lines(path) == 2
    path.write_bytes(b"")
    assert estimated_lines(path) == 0


def test_columns_that_lack_or_stand_twice_are_named() -> None:
    with pytest.raises(UsageError, match=r"a\.csv: no column 'c'; its columns are a, b"):
        check_columns(Path("a.csv"), ["a", "b"], ["a", "c"])
    with pytest.raises(UsageError, match=r"a\.csv: two columns are called 'a'"):
        check_columns(Path("a.csv"), ["a", "a"], ["a"])


def test_lines_that_do_not_fit_are_counted_and_the_others_read(tmp_path: Path) -> None:
    path = tmp_path / "it's.csv"
    path.write_bytes(b'a,b\r\n1,x\r\n2\r\n3,y,z\r\nno,x\r\n 4 ,"q\r\n')
    columns = {"a": f"try_cast({cell('a')} AS BIGINT)", "b": cell("b")}
    with _space(tmp_path) as space:
        relation = csv_relation(path, ["a", "b"], "t")
        counts = read_rows(
            space, "t", relation, columns, [Unusable("a IS NULL", "a", "is no number")]
        )
        assert space.rows("SELECT a, b FROM t ORDER BY ALL") == [(1, "x"), (4, '"q')]
        assert counts.dropped == {"a is no number": 1}
        assert counts.first["a is no number"] == "'no'"
        rejected = rejected_lines(space, "t")
        assert rejected.rows == 2
        assert rejected.dropped == {
            "line with missing columns": 1, "line with too many columns": 1,
        }  # fmt: skip
        assert rejected.first["line with missing columns"].startswith("line 3: ")


def test_ids_are_dense_from_2_in_the_order_of_the_raw_ids(tmp_path: Path) -> None:
    with _space(tmp_path) as space:
        size = number_ids(space, "ids", "SELECT unnest([30, 7, NULL, 30, 100]) AS raw")
        assert size == 5
        assert space.rows("FROM ids ORDER BY id") == [(7, 2), (30, 3), (100, 4)]
