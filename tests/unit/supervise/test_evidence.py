"""Evidence: only armed processes get the signal, and what is kept is enough to tell the place."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from ctrkit.supervise.evidence import Evidence, examine, tail

# A main process that has armed its stacks, with one child that has not: a signal would kill that.
FAMILY = """
import subprocess, sys, time
from pathlib import Path
from ctrkit.lifeline import arm_stacks
folder = Path(sys.argv[1])
child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
arm_stacks(folder)
(folder / "ready").touch()
def wait_here():
    input()
wait_here()
child.communicate(b"\\n")
sys.exit(child.returncode)
"""


def test_only_armed_processes_get_the_signal(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", FAMILY, str(tmp_path)], stdin=subprocess.PIPE)
    try:
        deadline_s = time.monotonic() + 20
        while not (tmp_path / "ready").exists() and time.monotonic() < deadline_s:
            time.sleep(0.02)
        found = examine(tmp_path / "evidence", tmp_path, process.pid, lambda: None)
    finally:
        process.communicate(b"\n", timeout=20)
    assert process.returncode == 0, "the child that had not armed anything died of the signal"
    assert found == Evidence(place="the main process is at <string>:10 in wait_here")
    assert [path.name for path in (tmp_path / "evidence").glob("stacks-*")] == [
        f"stacks-{process.pid}.txt"
    ]
    described = json.loads((tmp_path / "evidence" / "processes.json").read_text())
    assert [entry["parent_pid"] for entry in described][1] == process.pid


def test_in_a_hurry_nobody_is_asked(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        examine(tmp_path, tmp_path, process.pid, lambda: None, hurry=lambda: True)
    finally:
        process.communicate(b"\n", timeout=20)
    assert [path.name for path in tmp_path.iterdir()] == ["processes.json"]


def test_a_tail_is_the_end_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "stderr.txt"
    assert tail(path) == ""
    path.write_bytes(b"abc\xffdef")
    assert tail(path, 4) == "\ufffddef"
