"""Who called `os._exit` is reported, except in a forked process, which ends that way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import os, sys
from ctrkit.child.sudden_exit import tell_sudden_exits
tell_sudden_exits()
def leave(code):
    os._exit(code)
if sys.argv[1] == "fork":
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
else:
    leave(int(sys.argv[1]))
"""


def ran(path: Path, argument: str) -> subprocess.CompletedProcess[str]:
    path.write_text(PROGRAM)
    return subprocess.run(
        [sys.executable, path, argument], capture_output=True, text=True, timeout=60
    )


def test_the_place_is_said(tmp_path: Path) -> None:
    done = ran(tmp_path / "leaves.py", "7")
    assert done.returncode == 7
    assert done.stderr == "os._exit(7) was called at leaves.py:6 in leave\n"
    assert ran(tmp_path / "leaves.py", "0").stderr.startswith("os._exit(0) was called")


def test_a_forked_process_ends_without_a_word(tmp_path: Path) -> None:
    done = ran(tmp_path / "leaves.py", "fork")
    assert (done.returncode, done.stderr) == (0, "")
