"""Evidence of real processes: only armed ones get the signal; it tells who and where."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from ctrkit.core.child_records import WorkerExit
from ctrkit.core.lifeline import FIRST_FOLDER, FOLDER_VARIABLE
from ctrkit.core.progress import Progress, Stage, WorkerStage, WorkerWriter
from ctrkit.supervise.explain.evidence import examine, examine_ended, tail
from ctrkit.supervise.explain.scene import Process, Scene
from ctrkit.supervise.explain.stack_readers import parse_py_spy
from ctrkit.supervise.explain.stacks import Frame

LINUX = sys.platform.startswith("linux")
linux_only = pytest.mark.skipif(not LINUX, reason="reads /proc")

# Each is a file of its own, so that its lines are a user's.
UNARMED_CHILD = """
import os, subprocess, sys
from pathlib import Path
env = {key: value for key, value in os.environ.items() if key != "CTRKIT_CHILD_FOLDER"}
child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env=env)
def wait_here():
    Path(sys.argv[1], "ready").touch()
    input()
wait_here()
child.communicate(b"\\n")
sys.exit(child.returncode)
"""
STOPS = """
import os, signal, sys, threading
from pathlib import Path
def stop_here():
    Path(sys.argv[1], "ready").touch()
    os.kill(os.getpid(), signal.SIGSTOP)
stop_here()
input()
"""
ZOMBIE = """
import os, sys, time
from pathlib import Path
if (pid := os.fork()) == 0:
    os._exit(7)
time.sleep(0.3)
Path(sys.argv[1], "ready").touch()
input()
"""
TAKES_A_LOCK_TWICE = """
import sys, threading
from pathlib import Path
lock = threading.Lock()
def step():
    lock.acquire()
    Path(sys.argv[1], "ready").touch()
    lock.acquire()
step()
"""
ENDS_ON_THE_SIGNAL = """
import ctypes, os, sys
from pathlib import Path
def wait_here():
    Path(sys.argv[1], "ready").touch()
    ctypes.CDLL(None).pause()
wait_here()
os.unlink(Path(sys.argv[1], f"stacks-{os.getpid()}.txt"))
Path(sys.argv[1], "woken").touch()
input()
"""


@contextmanager
def running(folder: Path, code: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs `code` from `user.py`, armed before anything else; ended afterwards."""
    script = folder / "user.py"
    script.write_text(code)
    env = os.environ | {FOLDER_VARIABLE: str(folder), "PYTHONPATH": str(FIRST_FOLDER)}
    process = subprocess.Popen(
        [sys.executable, str(script), str(folder)], env=env, stdin=subprocess.PIPE
    )
    try:
        deadline_s = time.monotonic() + 60
        while not (folder / "ready").exists() and time.monotonic() < deadline_s:
            time.sleep(0.02)
        time.sleep(0.2)  # what follows the mark takes a moment
        yield process
    finally:
        process.kill()
        process.communicate(timeout=60)


def test_only_armed_processes_get_the_signal(tmp_path: Path) -> None:
    with running(tmp_path, UNARMED_CHILD) as process:
        found = examine(tmp_path / "evidence", tmp_path, process.pid, lambda: None)
        process.communicate(b"\n", timeout=60)
    assert process.returncode == 0, "the child that had not armed anything died of the signal"
    assert found.place == "the main process is at user.py:8 in wait_here"
    assert not found.woken
    assert [path.name for path in (tmp_path / "evidence").glob("stacks-*")] == [
        f"stacks-{process.pid}.txt"
    ]
    described = json.loads((tmp_path / "evidence" / "processes.json").read_text())
    assert [entry["parent_pid"] for entry in described][1] == process.pid
    cause = json.loads((tmp_path / "evidence" / "cause.json").read_text())
    assert cause["guilty"] == "the main process"


def test_in_a_hurry_nobody_is_asked(tmp_path: Path) -> None:
    with running(tmp_path, TAKES_A_LOCK_TWICE) as process:
        found = examine(
            tmp_path / "evidence", tmp_path, process.pid, lambda: None, hurry=lambda: True
        )
        assert process.poll() is None
    assert [path.name for path in (tmp_path / "evidence").iterdir()] == ["processes.json"]
    assert found.cause is None


def test_a_deadlock_is_named_with_its_line_of_code(tmp_path: Path) -> None:
    with running(tmp_path, TAKES_A_LOCK_TWICE) as process:
        found = examine(tmp_path / "evidence", tmp_path, process.pid, lambda: None)
    assert found.cause is not None
    assert (found.cause.name, found.cause.place) == ("deadlock", "user.py:8 in step")
    assert "`lock.acquire()`" in (found.cause.waits_for or "")
    if LINUX:
        assert found.scene.main.wait is not None


def test_a_stopped_process_shows_where_it_stands_and_stays_stopped(tmp_path: Path) -> None:
    with running(tmp_path, STOPS) as process:
        found = examine(tmp_path / "evidence", tmp_path, process.pid, lambda: None)
        time.sleep(0.2)
        assert psutil.Process(process.pid).status() == psutil.STATUS_STOPPED
        process.send_signal(signal.SIGCONT)
        process.communicate(b"\n", timeout=60)
    assert process.returncode == 0
    assert found.cause is not None
    assert (found.cause.name, found.cause.place) == ("stopped process", "user.py:6 in stop_here")


def test_stacks_of_a_process_that_the_signal_wakes_are_kept(tmp_path: Path) -> None:
    """Woken, it goes on and removes its file; the place is the one before."""
    writes = iter([1, *[2] * 1000])

    def read() -> Progress:
        return Progress(pid=1, stage=Stage.STEP, epoch=1, step=0, steps=0, rows=0,
                        writes=next(writes), written_s=0.0, wait_s=0.0, loss=0.0)  # fmt: skip

    with running(tmp_path, ENDS_ON_THE_SIGNAL) as process:
        found = examine(tmp_path / "evidence", tmp_path, process.pid, read)
        assert (tmp_path / "woken").exists()
    assert found.woken
    assert found.place == "the main process is at user.py:6 in wait_here"


@linux_only
def test_a_worker_that_died_unseen_is_found_with_its_exit_code(tmp_path: Path) -> None:
    with running(tmp_path, ZOMBIE) as process:
        (zombie,) = psutil.Process(process.pid).children()
        found = examine(tmp_path / "evidence", tmp_path, process.pid, lambda: None)
    assert found.scene.dead == (WorkerExit(pid=zombie.pid, worker=None, exit_code=7),)


def test_a_death_is_explained_from_what_is_left(tmp_path: Path) -> None:
    writer = WorkerWriter(tmp_path, 1)
    writer.enter(WorkerStage.FETCHING, batches=4)
    (tmp_path / "stderr.txt").write_text("so it ends\n")
    dead = WorkerExit(pid=os.getpid(), worker=None, exit_code=-9)
    known = Scene(root_pid=1, verdict="worker-died", dead=(dead,))
    found = examine_ended(tmp_path / "evidence", tmp_path, known)
    assert found.cause is not None
    assert found.cause.guilty == f"worker 1 (pid {os.getpid()})"
    assert found.cause.sentence.endswith("while it made its batch 5")
    assert found.scene.stderr == "so it ends\n"


def test_py_spys_threads_end_with_the_main_one() -> None:
    text = json.dumps([
        {"os_thread_id": 7, "frames": [{"name": "f", "filename": "/home/me/a.py", "line": 3}]},
        {"os_thread_id": 8, "frames": [{"name": "g", "filename": "/home/me/a.py", "line": 9}]},
        {"os_thread_id": 9, "frames": []},
    ])  # fmt: skip
    threads = parse_py_spy(text, 7)
    assert [thread[0].function for thread in threads] == ["g", "f"]
    assert Process(pid=7, threads=threads).stack == (Frame("/home/me/a.py", 3, "f"),)


def test_a_tail_is_the_end_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "stderr.txt"
    assert tail(path) == ""
    path.write_bytes(b"abc\xffdef")
    assert tail(path, 4) == "\ufffddef"
