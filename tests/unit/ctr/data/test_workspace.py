from __future__ import annotations

import _thread
import sys
import threading
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from ctrkit.core.errors import UsageError
from ctrkit.ctr.data.stage_progress import StageProgress, Watcher
from ctrkit.ctr.data.workspace import LimitError, Workspace, workspace


class Notes(Watcher):
    def __init__(self) -> None:
        self.told: list[StageProgress] = []

    def stage(self, progress: StageProgress) -> None:
        self.told.append(progress)


def _space(
    folder: Path, memory_limit_bytes: int = 10**9, watcher: Watcher | None = None
) -> AbstractContextManager[Workspace]:
    return workspace(folder, memory_limit_bytes=memory_limit_bytes, threads=1, watcher=watcher)


def _make(space: Workspace) -> dict[str, int]:
    space.run("CREATE TABLE t AS SELECT range AS a FROM range(10)")
    space.count_bad("odd", 5)
    space.advance(10, 10)
    return {"rows": 10}


def test_a_finished_stage_is_not_done_again(tmp_path: Path) -> None:
    with _space(tmp_path) as space:
        space.save = lambda: {"kept": 7}
        assert space.stage("one", lambda: _make(space)) == {"rows": 10}
    notes = Notes()
    with _space(tmp_path, watcher=notes) as space:
        assert space.stage("one", lambda: pytest.fail("done again")) == {"rows": 10}
        assert space.bad_rows == {"odd": 5}
        assert space.saved == {"kept": 7}
        assert space.value("SELECT sum(a) FROM t") == 45
        assert [stage.name for stage in space.finished] == ["one"]
    assert [(stage.name, stage.state, stage.rows) for stage in notes.told] == [
        ("one", "skipped", 10)
    ]


def test_a_stage_that_fails_is_undone(tmp_path: Path) -> None:
    def fail(space: Workspace) -> None:
        _make(space)
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"), _space(tmp_path) as space:
        space.stage("one", lambda: fail(space))
    with _space(tmp_path) as space:
        assert space.bad_rows == {}
        assert space.finished == ()
        assert space.stage("one", lambda: _make(space)) == {"rows": 10}


def test_a_stage_tells_how_far_it_is(tmp_path: Path) -> None:
    def work(space: Workspace) -> None:
        space.advance(25, 100)
        space.advance(50, 100, begin=0.5)
        space.advance(100, 100)

    notes = Notes()
    with _space(tmp_path, watcher=notes) as space:
        space.stage("one", lambda: work(space))
    assert [(stage.state, stage.rows, stage.share) for stage in notes.told] == [
        ("running", 0, 0.0),
        ("running", 25, 0.25),
        ("running", 50, 0.75),
        ("running", 100, 1.0),
        ("done", 100, 1.0),
    ]


def test_a_long_query_tells_of_its_progress(tmp_path: Path) -> None:
    notes = Notes()

    def work(space: Workspace) -> None:
        space.run("CREATE TABLE n AS SELECT range AS a FROM range(200000)")
        space.advance(0, 1000)
        space.run("CREATE TABLE t AS SELECT sum(sin(n.a * m.range)) FROM n, range(150) m")

    with _space(tmp_path, watcher=notes) as space:
        space.stage("one", lambda: work(space))
    running = [stage for stage in notes.told if stage.state == "running"]
    assert len(running) > 2
    assert [stage.share for stage in running] == sorted(stage.share for stage in running)
    assert all(stage.rows == round(stage.share * 1000) for stage in running)
    assert all(stage.cpu_s > 0 for stage in running[2:])


def test_pace_and_remaining_time() -> None:
    stage = StageProgress(name="a", share=0.25, rows=500, elapsed_s=10.0)
    assert (stage.rows_per_s, stage.remaining_s) == (50.0, 30.0)
    for share in (0.001, 1.0):
        early = StageProgress(name="a", share=share, rows=0, elapsed_s=10.0)
        assert (early.rows_per_s, early.remaining_s) == (None, None)


def test_a_result_is_streamed_in_pieces(tmp_path: Path) -> None:
    with _space(tmp_path) as space:
        batches = list(space.stream("SELECT range AS a FROM range(300000) ORDER BY a"))
        assert len(batches) > 1
        assert sum(len(batch) for batch in batches) == 300_000
        assert list(space.stream("SELECT 1 AS a WHERE false")) == []
        empty = space.table("SELECT 1 AS a WHERE false")
        assert empty.column_names == ["a"]


def test_too_small_a_memory_limit_is_said(tmp_path: Path) -> None:
    with (
        pytest.raises(LimitError, match=r"--memory-limit 2 MB is too small"),
        _space(tmp_path, 2_000_000) as space,
    ):
        space.run("SET temp_directory = ''")
        space.run("CREATE TABLE t AS SELECT random() AS a FROM range(1000000) ORDER BY a")


def test_ctrl_c_ends_a_query(tmp_path: Path) -> None:
    timer = threading.Timer(0.3, _thread.interrupt_main)
    with pytest.raises(KeyboardInterrupt), _space(tmp_path) as space:
        timer.start()
        space.run("CREATE TABLE t AS SELECT sum(sin(range)) FROM range(1000000000000)")
    timer.join()


def test_a_database_that_is_none_is_said(tmp_path: Path) -> None:
    (tmp_path / "ingest.duckdb").write_bytes(b"no database" * 1000)
    with pytest.raises(LimitError, match="with --fresh starts over"), _space(tmp_path):
        pass


def test_without_duckdb_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(UsageError, match=r"ctrkit\[prepare\]"), _space(tmp_path):
        pass
