"""What `ctrkit probe -- COMMAND` leaves behind besides its run folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctrkit.commands.script_probe import check_new_file, save_change
from ctrkit.core.config import make_cell
from ctrkit.core.errors import UsageError
from ctrkit.core.script_records import ScriptAnswer
from ctrkit.report.script_view import _files

CELL = make_cell(loader="script")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "no file was written: the script as written is recommended"),
        ("run the command above: its flags have the values", "no file was written: run the comm"),
    ],
)
def test_without_a_change_no_file_is_made_and_it_is_said_why(
    tmp_path: Path, words: str, said: str
) -> None:
    path = tmp_path / "x.patch"
    assert said in save_change(path, ScriptAnswer(as_written=CELL, change_words=words))
    assert "no file" in save_change(path, None)
    assert not path.exists()


def test_a_change_is_written(tmp_path: Path) -> None:
    path, answer = tmp_path / "x.patch", ScriptAnswer(as_written=CELL, change="--- a\n+++ b\n")
    assert save_change(path, answer) == ""
    assert path.read_text() == answer.change
    assert "cannot be written" in save_change(tmp_path / "no" / "x.patch", answer)


@pytest.mark.parametrize(
    ("name", "said"),
    [("none/x.diff", "there is no folder"), ("old.diff", "exists already"), ("", "exists already"),
     ("old.diff/x.diff", "there is no folder")],
)  # fmt: skip
def test_a_file_that_could_not_be_written_is_refused_before_the_probe(
    tmp_path: Path, name: str, said: str
) -> None:
    (tmp_path / "old.diff").write_text("mine")
    with pytest.raises(UsageError, match=said):
        check_new_file("--write-patch", tmp_path / name)
    check_new_file("--write-patch", tmp_path / "new.diff")
    assert [path.name for path in tmp_path.iterdir()] == ["old.diff"]


def test_files_that_came_meanwhile_are_not_said_to_be_the_trials() -> None:
    (section,) = _files(ScriptAnswer(as_written=CELL, files_made=["log.csv"]))
    assert section.heading == "Files that appeared or changed in the folder while the trials ran"
