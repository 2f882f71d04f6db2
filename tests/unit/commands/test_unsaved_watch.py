"""What is reported about checkpoints that the disk refused."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from ctrkit.commands.unsaved_watch import UnsavedWatch
from ctrkit.core.config import WorkloadSpec, make_cell
from ctrkit.core.runs import RunFolder
from ctrkit.core.unsaved import UNSAVED_FILE, Unsaved, UnsavedWriter, read_unsaved

CELL = make_cell()


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    made = RunFolder.create("train", ["train"], WorkloadSpec(), tmp_path / "run")
    (made.path / "child").mkdir(exist_ok=True)
    return made


def failing(tries: int, **more: float) -> Unsaved:
    values = {"epoch": 3, "batch": 40 + tries, "saved_epoch": 2, "saved_batch": 7, **more}
    return Unsaved(failures=tries, errno=errno.ENOSPC, again_s=600.0, **values)  # type: ignore[arg-type]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert read_unsaved(tmp_path / UNSAVED_FILE) is None
    writer = UnsavedWriter(tmp_path / UNSAVED_FILE)
    assert read_unsaved(tmp_path / UNSAVED_FILE) is None
    for state in (failing(1), failing(2, waits_s=60.0), Unsaved(epoch=9)):
        writer.write(state)
        assert read_unsaved(tmp_path / UNSAVED_FILE) == state


def test_each_row_of_failures_is_told_seldom_and_written_down_once(run: RunFolder) -> None:
    said: list[str] = []
    watch = UnsavedWatch(run, run.path / "child", said.append)
    writer = UnsavedWriter(run.path / "child" / UNSAVED_FILE)
    for tries in range(1, 9):
        writer.write(failing(tries))
        watch.look(CELL)
        watch.look(CELL)
    assert [("8 tries in a row" in line, "WARNING" in line) for line in said] == [
        (False, True), (False, True), (False, True), (True, True)
    ]  # fmt: skip
    assert "No space left on device. Training continues" in said[0]
    assert "last good checkpoint is kept (epoch 2, 7 batches of it done)" in said[0]
    assert "tries again in 10 min" in said[0]
    writer.write(Unsaved(epoch=4, batch=2))
    watch.look(CELL)
    assert "could be written again: epoch 4, 2 batches" in said[-1]
    [incident] = run.incidents()
    assert (incident["verdict"], incident["action"]) == ("not saved", "noted")
    assert (incident["epoch"], incident["step"]) == (3, 41)


def test_the_end_of_a_run_waits(run: RunFolder) -> None:
    said: list[str] = []
    watch = UnsavedWatch(run, run.path / "child", said.append)
    writer = UnsavedWriter(run.path / "child" / UNSAVED_FILE)
    for tries in (1, 1, 2, 3):
        writer.write(failing(tries, waits_s=60.0))
        watch.look(CELL)
    assert len(said) == 1
    assert "the run is done, but" in said[0]


def test_a_disk_without_room_for_a_line_gets_it_later(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    watch = UnsavedWatch(run, run.path / "child", said.append)
    UnsavedWriter(run.path / "child" / UNSAVED_FILE).write(failing(1))
    with monkeypatch.context() as full:

        def refuse(_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        full.setattr(run, "append_incident", refuse)
        watch.look(CELL)
        watch.close()
    assert run.incidents() == []
    watch.close()
    assert len(run.incidents()) == 1
