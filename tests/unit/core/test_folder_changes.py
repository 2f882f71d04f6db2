"""Files that were made or changed between two looks at a folder."""

from __future__ import annotations

import os
from pathlib import Path

from ctrkit.core.folder_changes import changes_between, look_at_folder


def test_made_and_changed_files_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "old.txt").write_text("a")
    (tmp_path / "same.txt").write_text("a")
    before = look_at_folder(tmp_path)
    (tmp_path / "old.txt").write_text("longer")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.pt").write_text("x")
    change = changes_between(before, look_at_folder(tmp_path))
    assert change.made == (os.path.join("out", "model.pt"),)
    assert change.changed == ("old.txt",)


def test_the_run_folder_and_caches_are_left_out(tmp_path: Path) -> None:
    before = look_at_folder(tmp_path, without=tmp_path / "results")
    for folder in ("results", "__pycache__", ".git"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "file").write_text("x")
    after = look_at_folder(tmp_path, without=tmp_path / "results")
    assert changes_between(before, after).made == ()
