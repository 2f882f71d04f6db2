"""Files that were made or changed between two looks at a folder."""

from __future__ import annotations

import os
import subprocess
import sys
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


def test_the_files_that_the_probe_itself_prints_to_are_left_out(tmp_path: Path) -> None:
    """`ctrkit probe ... > probe.txt` in the script's folder is no trace of the script."""
    look = (
        "import sys; from pathlib import Path; from ctrkit.core.folder_changes import *;"
        "folder = Path(sys.argv[1]); before = look_at_folder(folder);"
        "print('x', flush=True); print('y', file=sys.stderr, flush=True);"
        "(folder / 'model.pt').write_text('z');"
        "found = changes_between(before, look_at_folder(folder));"
        "(folder / 'found').write_text(repr((found.made, found.changed)))"
    )
    with open(tmp_path / "out.txt", "w") as out, open(tmp_path / "error.txt", "w") as error:
        subprocess.run(
            [sys.executable, "-c", look, str(tmp_path)],
            stdout=out, stderr=error, check=True, timeout=60,
        )  # fmt: skip
    assert (tmp_path / "found").read_text() == "(('model.pt',), ())"
