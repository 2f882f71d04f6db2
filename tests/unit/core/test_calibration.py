"""Rows of `calibration.parquet`: what a run's row says, and no writer loses another's row."""

import multiprocessing
from dataclasses import replace

import pyarrow as pa
import pytest

from ctrkit.core.calibration import (
    CALIBRATION_SCHEMA,
    calibration_path,
    note_calibration,
    pairs_of,
    read_calibration,
    row_of_run,
)
from ctrkit.core.config import RunSizes, WorkloadSpec, make_cell
from ctrkit.core.errors import UsageError
from ctrkit.core.files import read_table, write_json, write_table
from ctrkit.core.records import Recommendation, RunInfo

CELL = make_cell(loader="batches", workers=2, threads=1)
PROMISE = Recommendation(
    cell=CELL, reason="r", launches=3, probe="p1", flags=["drift"], projected_startup_s=5.0,
    projected_epoch_s=10.0, projected_epoch_s_low=9.0, projected_epoch_s_high=11.0,
    projected_total_s=105.0, projected_total_s_low=94.5, projected_total_s_high=115.5,
)  # fmt: skip


def info(**changes):
    values = {
        "command": "train", "argv": [], "created": "2030-01-02T03:04:05+00:00", "environment": {},
        "machine_fingerprint": "m", "workload": WorkloadSpec(), "workload_fingerprint": "w",
        "data_fingerprint": "d", "sizes": RunSizes(epochs=2), "cell": CELL, "projection": PROMISE,
        "status": "done", "wall_s": 26.0,
    }  # fmt: skip
    return RunInfo(**(values | changes))


def row(tmp_path, walls=(10.5, 11.5), incidents=0, **changes):
    return row_of_run(tmp_path / "run1", info(**changes), walls, incidents)


def test_a_finished_run_has_its_promise_and_its_times(tmp_path):
    found = row(tmp_path)
    assert (found.outcome, found.epochs, found.launches, found.probe) == ("finished", 2, 3, "p1")
    assert (found.actual_epoch_s, found.actual_total_s) == (11.0, 26.0)
    assert found.projected_total_s == pytest.approx(25.0), "of the epochs that were run"
    assert found.projected_total_s_low == pytest.approx(22.5)
    assert found.projected_total_s_high == pytest.approx(27.5)
    assert found.cell["workers"] == 2
    assert found.flags == ["drift"]


def test_a_run_without_a_promise_has_no_row(tmp_path):
    assert row(tmp_path, projection=None) is None
    endless = Recommendation(cell=CELL, reason="r")
    assert row(tmp_path, projection=endless) is None


@pytest.mark.parametrize(
    ("status", "reason", "outcome"),
    [
        ("ended", "deadlock: no progress: nothing", "failed: deadlock"),
        ("ended", "late: would end at 3", "failed: late"),
        ("failed", "the data are gone", "failed"),
        ("interrupted", "stopped by the user", "interrupted"),
        ("running", "", "interrupted"),
    ],
)
def test_a_run_that_did_not_finish_is_kept_too(tmp_path, status, reason, outcome):
    found = row(tmp_path, walls=(), status=status, status_reason=reason)
    assert found.outcome == outcome
    assert (found.actual_epoch_s, found.actual_total_s, found.projected_total_s) == (None,) * 3


def test_epochs_of_an_interrupted_run_count_and_its_total_does_not(tmp_path):
    found = row(tmp_path, walls=(12.0,), status="interrupted")
    assert (found.actual_epoch_s, found.actual_total_s) == (12.0, None)


def test_a_run_cut_by_max_steps_has_no_total_and_one_that_stopped_early_has(tmp_path):
    assert row(tmp_path, walls=(12.0,)).actual_total_s is None
    (tmp_path / "run1" / "child").mkdir(parents=True)
    write_json(tmp_path / "run1" / "child" / "outcome.json", {"stopped_early": True})
    assert row(tmp_path, walls=(12.0,)).actual_total_s == 26.0


def test_rows_come_back_as_they_were_and_a_resumed_run_keeps_one(tmp_path):
    path = tmp_path / "c.parquet"
    assert read_calibration(path) == []
    first, other = row(tmp_path, status="interrupted"), row(tmp_path, created="2030-02-01")
    note_calibration(first, path)
    note_calibration(other, path)
    assert read_calibration(path) == [first, other]
    note_calibration(row(tmp_path), path)
    assert [r.outcome for r in read_calibration(path)] == ["finished", "finished"]


def test_it_lies_in_the_cache_folder(own_home, tmp_path):
    note_calibration(row(tmp_path))
    assert calibration_path() == own_home / "calibration.parquet"
    assert len(read_calibration()) == 1


def _write_some(path, number):
    for i in range(5):
        created = f"2030-01-0{number}T00:00:0{i}"
        note_calibration(row_of_run(path.parent / "run", info(created=created), (1.0,), 0), path)


def test_two_writers_lose_nothing(tmp_path):
    path = tmp_path / "c.parquet"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_some, args=(path, n)) for n in (1, 2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
        assert writer.exitcode == 0
    assert len({r.when for r in read_calibration(path)}) == 10
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.parquet", "c.parquet.lock"]


def other_version(path):
    table = read_table(path)
    at = table.schema.get_field_index("schema_version")
    column = pa.array([CALIBRATION_SCHEMA + 1] * len(table), pa.int64())
    write_table(path, table.set_column(at, "schema_version", column))


def another_column(path):
    write_table(path, read_table(path).append_column("more", pa.array([1])))


def damaged(path):
    path.write_bytes(b"PAR1 nothing")


@pytest.mark.parametrize("spoil", [other_version, another_column, damaged])
def test_what_cannot_be_read_is_one_line_and_stays_as_it_is(tmp_path, spoil):
    path = tmp_path / "c.parquet"
    note_calibration(row(tmp_path), path)
    spoil(path)
    before = path.read_bytes()
    with pytest.raises(UsageError, match=r"c\.parquet") as caught:
        note_calibration(row(tmp_path, created="later"), path)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        note_calibration(row(tmp_path), tmp_path / "file" / "c.parquet")


def test_a_row_says_how_long_after_its_projection_the_run_began(tmp_path):
    promise = replace(PROMISE, projected_at="2030-01-02T01:34:05+00:00")
    assert row(tmp_path, projection=promise).apart_s == 5400
    assert row(tmp_path).apart_s is None


def test_a_file_without_the_newer_column_is_read(tmp_path):
    path = tmp_path / "calibration.parquet"
    note_calibration(row(tmp_path), path)
    write_table(path, read_table(path).drop_columns(["apart_s"]))
    (found,) = read_calibration(path)
    assert found.apart_s is None
    note_calibration(row(tmp_path, created="2031-01-02T03:04:05+00:00"), path)
    assert len(read_calibration(path)) == 2


def test_pairs_are_of_this_machine_and_none_is_left_out_for_its_outcome(tmp_path):
    late = replace(PROMISE, projected_at="2030-01-02T01:34:05+00:00")
    rows = [
        row(tmp_path),
        row(tmp_path, walls=(30.0,), status="interrupted"),
        row(tmp_path, workload_fingerprint="other"),
        row(tmp_path, machine_fingerprint="other"),
        row(tmp_path, incidents=1),
        row(tmp_path, walls=()),
        row(tmp_path, projection=late),
    ]
    pairs = pairs_of(rows, "m", "w")
    assert [(p.actual_s, p.launches, p.is_of_workload) for p in pairs] == [
        (11.0, 3, True), (30.0, 3, True), (11.0, 3, False),
    ]  # fmt: skip
    assert len(pairs_of(rows, "m", "w", "within a day")) == 1
    assert pairs_of(rows, "m", "w", "later") == []
