"""Stacks on a signal that nothing else uses, in every kind of process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ctrkit.core.lifeline import FIRST_FOLDER, FOLDER_VARIABLE
from ctrkit.core.stacks_signal import listened_signal, stacks_path
from ctrkit.supervise.explain import passive
from ctrkit.supervise.explain.evidence import _dump_all
from ctrkit.supervise.explain.scene import Process

LINUX = sys.platform.startswith("linux")

HERE = """
import os, signal, sys
from pathlib import Path
from ctrkit.core.stacks_signal import arm_stacks, listened_signal, stacks_path
folder = Path(sys.argv[1])
def here():
    os.kill(os.getpid(), listened_signal(folder, os.getpid()))
    count = stacks_path(folder, os.getpid()).read_text().count("in here")
    os.write(1, f"{count}\\n".encode())  # at once: two processes write at a time
"""
FORK = """
arm_stacks(folder)
here()
child = os.fork()
if child == 0:
    grandchild = os.fork()
    here()
    if grandchild:
        os.waitpid(grandchild, 0)
    os._exit(0)
os.waitpid(child, 0)
arm_stacks(folder)
here()
"""
SPAWN = """
import multiprocessing
class Hostile:
    def __reduce__(self):
        return (here, ())
if __name__ == "__main__":
    for method in ("spawn", "forkserver"):
        process = multiprocessing.get_context(method).Process(target=print, args=(Hostile(),))
        process.start()
        process.join(30)
"""


def python(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], env=os.environ | env, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip


def armed(folder: Path) -> dict[str, str]:
    return {"PYTHONPATH": str(FIRST_FOLDER), FOLDER_VARIABLE: str(folder)}


def test_forked_processes_write_their_stacks_to_files_of_their_own(tmp_path: Path) -> None:
    done = python("-c", HERE + FORK, str(tmp_path))
    assert done.stdout.split() == ["1", "1", "1", "2"], done.stderr
    assert len(list(tmp_path.glob("stacks-*.txt"))) == 3


def test_spawned_processes_are_armed_before_they_unpickle(tmp_path: Path) -> None:
    script = tmp_path / "main.py"
    script.write_text(HERE + SPAWN)
    done = python(str(script), str(tmp_path), **armed(tmp_path))
    assert done.stdout.split() == ["1", "None", "1", "None"], done.stderr


USERS = """
import os, signal, sys, threading
def handler(number, frame):
    os.write(1, f"handler of {number}\\n".encode())
numbers = {numbers}
for number in numbers:
    try:
        signal.signal(number, handler)
    except OSError:
        pass  # SIGKILL, SIGSTOP
def waits_here():
    print("ready", flush=True)
    threading.Event().wait()
waits_here()
"""
LISTENED = "__import__('ctrkit.core.stacks_signal').core.stacks_signal.listened_signal(FOLDER, PID)"
LISTENED = LISTENED.replace("FOLDER", "os.environ['CTRKIT_CHILD_FOLDER']")
LISTENED = LISTENED.replace("PID", "os.getpid()")


@pytest.mark.parametrize(
    ("numbers", "shows"),
    [
        ("[signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM]", True),
        (f"[{LISTENED}]", LINUX),  # it takes another one
        (f"[{LISTENED}, {LISTENED}, {LISTENED}]", LINUX),
        ("range(signal.SIGRTMIN, signal.SIGRTMAX + 1)" if LINUX else "[]", True),
        ("signal.valid_signals()", False),
        ("sorted(signal.valid_signals(), reverse=True)", False),
    ],
)
def test_no_handler_of_the_users_is_ever_run(tmp_path: Path, numbers: str, shows: bool) -> None:
    code = USERS.replace("{numbers}", numbers)
    with subprocess.Popen(
        [sys.executable, "-c", code], env=os.environ | armed(tmp_path), stdout=subprocess.PIPE,
        text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            dumps = _dump_all([Process(pid=process.pid)], tmp_path)
            assert ("waits_here" in dumps.get(process.pid, "")) == shows
            assert process.poll() is None
        finally:
            process.kill()
        assert process.stdout.read() == ""


@pytest.mark.skipif(not LINUX, reason="/proc tells")
def test_one_that_waits_for_signals_itself_is_not_asked(tmp_path: Path) -> None:
    code = (
        "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()); "
        "print('ready', flush=True); print(signal.sigwait(signal.valid_signals()))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], env=os.environ | armed(tmp_path), stdout=subprocess.PIPE,
        text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            (found,) = passive.look(process.pid, lambda: True)
            assert _dump_all([found], tmp_path) == {}
            assert process.poll() is None
        finally:
            process.kill()


def test_whoever_is_not_armed_is_not_asked(tmp_path: Path) -> None:
    assert listened_signal(tmp_path, 1) is None
    stacks_path(tmp_path, 1).write_text("Current thread 0x1 (most recent call first):\n")
    assert listened_signal(tmp_path, 1) is None


def test_a_handler_that_the_user_sets_is_what_the_user_gets_back(tmp_path: Path) -> None:
    code = (
        "import os, signal\n"
        f"number = {LISTENED}\n"
        "assert signal.getsignal(number) is signal.SIG_DFL\n"
        "assert signal.signal(number, print) is signal.SIG_DFL\n"
        "assert signal.getsignal(number) is print\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        f"    assert {LISTENED} != number\n"
        "    assert signal.getsignal(number) is print\n"
        "    os._exit(0)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
        "print('right')\n"
    )
    done = python("-c", code, **armed(tmp_path))
    assert done.stdout == "right\n", done.stderr
