"""Evidence of a trial that is not ok: first what only looks, last the signal that may wake it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from ctrkit.files import write_atomically, write_json
from ctrkit.lifeline import stacks_path
from ctrkit.progress import Progress
from ctrkit.supervise.sampler import STOPPED_STATES
from ctrkit.supervise.stacks import waiting_place

TAIL_BYTES = 64_000
_MAX_WORD, _MAX_THREADS, _MAX_PROCESSES = 200, 32, 64
_PY_SPY_S, _PY_SPY_PROCESSES = 5.0, 8
_DUMP_S, _DUMP_SETTLED_S = 1.0, 0.05
_ALL_S = 20.0


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """`place`: half a sentence on where the guilty process waits; `woken`: progress resumed."""

    place: str | None = None
    woken: bool = False


def save_tails(folder: Path, child_folder: Path) -> None:
    """Keep the ends of the child's stdout and stderr."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("stdout.txt", "stderr.txt"):
        write_atomically(folder / name, tail(child_folder / name).encode())


def tail(path: Path, size: int = TAIL_BYTES) -> str:
    """The last bytes of a text file; empty if there is none."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - size))
            return file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""


def examine(
    folder: Path,
    child_folder: Path,
    root_pid: int,
    read: Callable[[], Progress | None],
    hurry: Callable[[], bool] = lambda: False,
) -> Evidence:
    """Examine a living family and save what is found into `folder`.

    `processes.json`, `py-spy-<pid>.txt` where py-spy is installed and may, `stacks-<pid>.txt` of
    every process that has armed faulthandler; then whether progress resumed, which a signal can
    cause. Takes about 20 s at most; what is left to ask is left out as soon as `hurry` says so.
    """
    deadline_s = time.monotonic() + _ALL_S

    def enough() -> bool:
        return hurry() or time.monotonic() > deadline_s

    folder.mkdir(parents=True, exist_ok=True)
    before = read()
    processes = _tree(root_pid)
    write_json(folder / "processes.json", [_describe(process) for process in processes])
    _run_py_spy(folder, processes[:_PY_SPY_PROCESSES], enough)
    dumps = {}
    for process in processes:
        if enough():
            break
        if _may_signal(process, child_folder) and (text := _dump(process.pid, child_folder)):
            dumps[process.pid] = text
            write_atomically(folder / f"stacks-{process.pid}.txt", text.encode())
    return Evidence(
        place=waiting_place(dumps, root_pid), woken=bool(dumps) and _resumed(before, read)
    )


def _resumed(before: Progress | None, read: Callable[[], Progress | None]) -> bool:
    deadline_s = time.monotonic() + _DUMP_S
    while time.monotonic() < deadline_s:
        after = read()
        if after is not None and (before is None or after.writes != before.writes):
            return True
        time.sleep(0.05)
    return False


def _tree(root_pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(root_pid)
        return [root, *root.children(recursive=True)][:_MAX_PROCESSES]
    except psutil.Error:
        return []


def _describe(process: psutil.Process) -> dict[str, Any]:
    """What the system knows of a process without asking it; a part that cannot be had is absent."""
    found: dict[str, Any] = {"pid": process.pid}
    with suppress(psutil.Error), process.oneshot():
        times = process.cpu_times()
        found |= {
            "parent_pid": process.ppid(),
            "name": process.name(),
            "status": process.status(),
            "command": [word[:_MAX_WORD] for word in process.cmdline()[:8]],
            "user_s": times.user,
            "system_s": times.system,
            "rss_bytes": process.memory_info().rss,
            "threads": process.num_threads(),
        }
    if sys.platform.startswith("linux"):
        tasks = Path(f"/proc/{process.pid}/task")
        with suppress(OSError):
            threads = sorted(tasks.iterdir(), key=lambda path: int(path.name))[:_MAX_THREADS]
            found["waits"] = [_describe_thread(thread) for thread in threads]
    return found


def _describe_thread(task: Path) -> dict[str, str]:
    """Kernel function and system call in which a Linux thread waits."""
    found = {"thread": task.name}
    for key in ("comm", "wchan", "syscall"):
        with suppress(OSError):
            found[key] = (task / key).read_text(errors="replace").strip()
    return found


def _run_py_spy(folder: Path, processes: list[psutil.Process], enough: Callable[[], bool]) -> None:
    beside = Path(sys.executable).parent / "py-spy"
    program = str(beside) if beside.is_file() else shutil.which("py-spy")
    if program is None:
        return
    for process in processes:
        if enough():
            return
        argv = [program, "dump", "--nonblocking", "--pid", str(process.pid)]
        try:
            done = subprocess.run(
                argv, capture_output=True, timeout=_PY_SPY_S, stdin=subprocess.DEVNULL, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return  # what did not answer once will not answer for the others
        if done.returncode == 0:
            write_atomically(folder / f"py-spy-{process.pid}.txt", done.stdout)


def _may_signal(process: psutil.Process, child_folder: Path) -> bool:
    """Whether the process runs and catches SIGUSR1: one that does not catch it would die."""
    try:
        if process.status() in (*STOPPED_STATES, psutil.STATUS_ZOMBIE):
            return False
    except psutil.Error:
        return False
    if not sys.platform.startswith("linux"):
        return stacks_path(child_folder, process.pid).exists()
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return False
    caught = next((line.split()[1] for line in status.splitlines() if line[:6] == "SigCgt"), "0")
    return bool(int(caught, 16) >> (signal.SIGUSR1 - 1) & 1)


def _dump(pid: int, child_folder: Path) -> str:
    """The stacks of one process. Forked workers write into the file of their parent."""
    sizes = {path: path.stat().st_size for path in child_folder.glob("stacks-*.txt")}
    try:
        os.kill(pid, signal.SIGUSR1)
    except OSError:
        return ""
    deadline_s = time.monotonic() + _DUMP_S
    text = ""
    while time.monotonic() < deadline_s:
        time.sleep(_DUMP_SETTLED_S)
        now = "".join(_read_from(path, size) for path, size in sizes.items())
        if now and now == text:
            break
        text = now
    return text


def _read_from(path: Path, offset: int) -> str:
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read().decode("utf-8", errors="replace")
