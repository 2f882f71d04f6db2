"""Reads the Python stacks of a process from outside, with py-spy or Python 3.14's own way."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ctrkit.supervise.explain.stacks import Frame, Thread, parse_dump

_PY_SPY_S = 5.0
_TRIES = 3  # a process that runs while it is read may give a wrong stack
_REMOTE_S = 3.0
_POLL_S = 0.05
_FIRST_REMOTE = (3, 14)

# Runs in the other process when it next runs Python code. If that is too late, it only removes
# itself.
_REMOTE_CODE = """\
def _ctrkit_dump():
    import faulthandler, os, time
    try:
        os.unlink({script!r})
        if time.time() < {until_s!r}:
            with open({answer!r} + ".part", "w") as file:
                faulthandler.dump_traceback(file, all_threads=True)
            os.rename({answer!r} + ".part", {answer!r})
    except Exception:
        pass
_ctrkit_dump()
del _ctrkit_dump
"""


@dataclass(frozen=True, kw_only=True)
class ReadStacks:
    """The threads of a process, the main thread last; or why there are none.

    Attributes:
        by: how they were read.
        raw: the reader's output.
        timed_out: the reader did not answer.
    """

    threads: tuple[Thread, ...] = ()
    by: str = ""
    raw: bytes = b""
    problem: str = ""
    timed_out: bool = False


def py_spy_program() -> str | None:
    """The py-spy beside this interpreter, else the one on PATH; None without one."""
    beside = Path(sys.executable).parent / "py-spy"
    return str(beside) if beside.is_file() else shutil.which("py-spy")


def by_py_spy(program: str, pid: int) -> ReadStacks:
    """Read stacks with py-spy, without pausing the process."""
    argv = [program, "dump", "--nonblocking", "--json", "--pid", str(pid)]
    said = ""
    for _ in range(_TRIES):
        try:
            done = subprocess.run(
                argv, capture_output=True, timeout=_PY_SPY_S, stdin=subprocess.DEVNULL, check=False
            )
        except subprocess.TimeoutExpired:
            return ReadStacks(problem=f"py-spy did not answer in {_PY_SPY_S:.0f} s", timed_out=True)
        except OSError as error:
            return ReadStacks(problem=f"py-spy cannot be started: {error}", timed_out=True)
        if done.returncode == 0:
            with suppress(ValueError, KeyError, TypeError):
                threads = parse_py_spy(done.stdout, pid)
                problem = "" if threads else "py-spy saw no Python code in it"
                return ReadStacks(threads=threads, by="py-spy", raw=done.stdout, problem=problem)
        said = done.stderr.decode(errors="replace")
        if "ermission" in said:
            break
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return ReadStacks(problem=lines[0].removeprefix("Error: ") if lines else "py-spy failed")


def parse_py_spy(text: bytes | str, pid: int) -> tuple[Thread, ...]:
    """Parse py-spy's JSON; the main thread comes last.

    py-spy writes `Rows.__getitem__` where Python's own dumps have `__getitem__`.
    """
    threads = sorted(json.loads(text), key=lambda one: one.get("os_thread_id") == pid)
    return tuple(
        tuple(
            Frame(f["filename"], int(f["line"]), f["name"].rpartition(".")[2])
            for f in thread["frames"]
        )
        for thread in threads
        if thread["frames"]
    )


def version_of(pid: int) -> tuple[int, int] | None:
    """The Python version of a running interpreter; None if unknown."""
    program = _interpreter(pid)
    if program is None:
        return None
    code = "import sys; print(*sys.version_info[:2])"
    try:
        done = subprocess.run(
            [program, "-I", "-S", "-c", code], capture_output=True, text=True, timeout=_PY_SPY_S,
            stdin=subprocess.DEVNULL, check=True,
        )  # fmt: skip
        major, minor = done.stdout.split()
        return int(major), int(minor)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def _interpreter(pid: int) -> str | None:
    """The program that the process runs, if it is a file."""
    import psutil

    with suppress(psutil.Error, OSError):
        program = psutil.Process(pid).exe()
        return program if program and os.path.isfile(program) else None
    return None


def by_remote_exec(pid: int, interpreter: str | None = None) -> ReadStacks:
    """Ask Python 3.14 or newer to write its stacks when it next runs Python code.

    The process's own interpreter asks, because both must have the same version. A process that
    waits in C does not answer; if it runs the request later, that does nothing.

    Args:
        pid: the process to read.
        interpreter: replaces the program that the process runs (for tests).
    """
    version = version_of(pid) if interpreter is None else _FIRST_REMOTE
    if version is None or version < _FIRST_REMOTE:
        return ReadStacks(problem="its Python is older than 3.14")
    program = interpreter or _interpreter(pid)
    folder = Path(tempfile.mkdtemp(prefix="ctrkit-explain-"))
    with suppress(OSError):  # root may ask another user's process, which then writes the answer
        owner = Path(f"/proc/{pid}").stat()
        os.chown(folder, owner.st_uid, owner.st_gid)
    answer, script = folder / "stacks.txt", folder / "ask.py"
    values = {"script": str(script), "answer": str(answer), "until_s": time.time() + _REMOTE_S}
    script.write_text(_REMOTE_CODE.format(**values), "utf-8")
    asks = f"import sys; sys.remote_exec({pid}, {str(script)!r})"
    try:
        done = subprocess.run(
            [str(program), "-I", "-S", "-c", asks], capture_output=True, text=True,
            timeout=_PY_SPY_S, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        return ReadStacks(problem=f"sys.remote_exec: {error}")
    if done.returncode != 0:
        shutil.rmtree(folder, ignore_errors=True)
        last = done.stderr.strip().splitlines()[-1:] or ["it failed"]
        return ReadStacks(problem=f"sys.remote_exec: {last[0]}")
    return _answer(folder, answer, script)


def _answer(folder: Path, answer: Path, script: Path) -> ReadStacks:
    """Wait for the answer. A script that has not run yet is not removed: that would be an error."""
    deadline_s = time.monotonic() + _REMOTE_S
    while time.monotonic() < deadline_s and not answer.exists():
        time.sleep(_POLL_S)
    text = answer.read_bytes() if answer.exists() else b""
    if text or not script.exists():
        shutil.rmtree(folder, ignore_errors=True)
    threads = parse_dump(text.decode(errors="replace"))
    if threads:
        return ReadStacks(threads=_without_ours(threads), by="sys.remote_exec", raw=text)
    return ReadStacks(problem="sys.remote_exec: it runs no Python code now, so it cannot answer")


def _without_ours(threads: tuple[Thread, ...]) -> tuple[Thread, ...]:
    """The threads without the frames of the code that we sent."""
    kept = (
        tuple(f for f in thread if not f.file.endswith("/ask.py") and f.function != "_ctrkit_dump")
        for thread in threads
    )
    return tuple(thread for thread in kept if thread)
