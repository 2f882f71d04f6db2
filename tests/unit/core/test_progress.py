"""The progress file."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from pathlib import Path

import pytest

from ctrkit.core.progress import (
    ProgressWriter,
    RankWriter,
    Stage,
    WorkerStage,
    WorkerWriter,
    rank_folder,
    read_progress,
    read_ranks,
    read_workers,
)
from ctrkit.core.spending import SPENT_FILE, Spending, SpentWriter, read_spent


def test_counters_add_up_within_an_epoch_and_start_anew_with_the_next(tmp_path: Path) -> None:
    path = tmp_path / "progress.bin"
    assert read_progress(path) is None
    with ProgressWriter(path) as writer:
        writer.enter(Stage.STEP, epoch=1, steps=10)
        writer.step(1, rows=5, wait_s=0.5, loss=0.7)
        writer.step(2, rows=5, wait_s=0.25)
        progress = read_progress(path)
        assert progress is not None
        assert (progress.pid, progress.stage) == (os.getpid(), Stage.STEP)
        assert (progress.epoch, progress.step, progress.steps, progress.rows) == (1, 2, 10, 10)
        assert progress.wait_s == pytest.approx(0.75)
        assert progress.loss == pytest.approx(0.7)
        writer.enter(Stage.FIRST_BATCH, epoch=2)
    progress = read_progress(path)
    assert progress is not None
    assert (progress.epoch, progress.step, progress.rows, progress.wait_s) == (2, 0, 0, 0.0)


def test_every_write_is_progress(tmp_path: Path) -> None:
    with ProgressWriter(tmp_path / "p") as writer:
        before = read_progress(tmp_path / "p")
        writer.enter(Stage.DATA)
        writer.step(1)
        after = read_progress(tmp_path / "p")
    assert before is not None
    assert after is not None
    assert after.writes == before.writes + 2
    assert before.written_s <= after.written_s <= time.monotonic()


def _write_many(path: str) -> None:
    with ProgressWriter(path) as writer:
        for step in range(1, 20001):
            writer.step(step, rows=2)


def test_a_reader_never_sees_half_a_write(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(
        target=_write_many, args=(str(tmp_path / "p"),)
    )
    process.start()
    try:
        seen = 0
        while process.is_alive():
            progress = read_progress(tmp_path / "p")
            if progress is not None:
                assert progress.rows == 2 * progress.step
                assert progress.step >= seen
                seen = progress.step
        assert seen > 0
    finally:
        process.join(30)
    assert process.exitcode == 0


def test_a_file_that_is_not_written_yet_is_no_progress(tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(b"")
    assert read_progress(tmp_path / "p") is None
    (tmp_path / "p").write_bytes(bytes(500))
    assert read_progress(tmp_path / "p") is None


def _work(folder: str, worker: int) -> None:
    writer = WorkerWriter(folder, worker)
    writer.enter(WorkerStage.FETCHING)
    writer.enter(WorkerStage.IDLE, batches=1)


def test_each_worker_has_a_file_of_its_own(tmp_path: Path) -> None:
    assert read_workers(tmp_path) == []
    WorkerWriter(tmp_path, 1)
    process = multiprocessing.get_context("spawn").Process(target=_work, args=(str(tmp_path), 0))
    process.start()
    process.join(30)
    (tmp_path / "worker-1.bin").write_bytes(b"half")
    other, mine = read_workers(tmp_path)
    assert (other.pid, other.worker, other.stage) == (process.pid, 0, WorkerStage.IDLE)
    assert (other.batches, other.writes) == (1, 3)
    assert (mine.pid, mine.stage, mine.batches) == (os.getpid(), WorkerStage.STARTING, 0)


def test_what_was_spent_is_read_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / SPENT_FILE
    assert read_spent(path) is None
    now_s = [0.0]
    writer = SpentWriter(path, lambda: now_s[0])
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            now_s[0] += 1.0
            writer.enter(Spending.COMPUTE)
            writer.step(2)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        last, deadline_s = 0, time.monotonic() + 60
        for _ in range(300):
            found = read_spent(path)
            if found is None:  # never at rest while it looked
                continue
            # both change in one write: torn, they would differ by a second
            assert sum(found.seconds) == found.since_s
            assert found.rows == 2 * found.steps
            assert found.writes >= last
            last = found.writes
            assert time.monotonic() < deadline_s
    finally:
        stop.set()
        thread.join()
    assert last > 1


def test_half_a_file_of_what_was_spent_is_nothing(tmp_path: Path) -> None:
    path = tmp_path / SPENT_FILE
    for content in (b"", b"\0" * 40, b"\0" * 400):
        path.write_bytes(content)
        assert read_spent(path) is None


def test_ranks_say_whether_they_wait(tmp_path: Path) -> None:
    assert read_ranks(tmp_path) == []
    first, second = (RankWriter(tmp_path, rank) for rank in (0, 1))
    first.enter(WorkerStage.IDLE)
    second.enter(WorkerStage.FETCHING)
    found = [(one.worker, one.stage, one.batches, one.pid) for one in read_ranks(tmp_path)]
    assert found == [
        (0, WorkerStage.IDLE, 1, os.getpid()), (1, WorkerStage.FETCHING, 0, os.getpid()),
    ]  # fmt: skip
    assert rank_folder(tmp_path, 0) == tmp_path
    assert rank_folder(tmp_path, 1) == tmp_path / "rank-1"
