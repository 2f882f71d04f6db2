"""Finds what a command leaves behind: processes with its mark, unused shared memory."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

MARK_VARIABLE = "CTRKIT_BENCH_MARK"
_SHARED = Path("/dev/shm")
_NAMES = re.compile(r"(torch_|sem\.|psm_)")
_USED = re.compile(r"/dev/shm/(\S+)")
_SETTLE_S = 1.0
#: Set it to stop the bench: commands that still run are then ended as at their cap.
STOP = threading.Event()
_WATCH_S = 0.4


@dataclass(frozen=True, kw_only=True)
class Ran:
    """A command that ended, or was ended at its cap; in that case `exit_code` is None.

    `left`: its processes that were still there `settle_s` after its own end. `orphans`: shared
    memory and semaphores that its processes had used, and that were still there without a user.
    """

    exit_code: int | None
    wall_s: float
    stdout: str
    stderr: str
    left: int
    orphans: tuple[str, ...]


def run_marked(
    argv: Sequence[str],
    folder: Path,
    *,
    cap_s: float,
    environment: Mapping[str, str] | None = None,
    settle_s: float = _SETTLE_S,
    gently: bool = False,
) -> Ran:
    """Run a command, at most `cap_s`; afterwards nothing of it is left, whatever it did.

    Its output goes to files in `folder`, which no orphan can hold open. At the cap it is killed
    alone, as a user would, or first asked by SIGTERM (`gently`), and what survives that is
    counted; then all that carries its mark is killed.
    """
    mark = uuid.uuid4().hex
    env = {**os.environ, **(environment or {}), MARK_VARIABLE: mark}
    out, err = folder / f"{mark}.out", folder / f"{mark}.err"
    began_s = time.monotonic()
    with open(out, "wb") as stdout, open(err, "wb") as stderr:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=env, cwd=folder,
            start_new_session=True,
        )  # fmt: skip
    exit_code: int | None = None
    try:
        with _watched_names(mark) as names:
            while time.monotonic() - began_s < cap_s and not STOP.is_set():
                with suppress(subprocess.TimeoutExpired):
                    exit_code = process.wait(0.5)
                    break
            wall_s = time.monotonic() - began_s
            if exit_code is None:
                _end(process, gently=gently)
        time.sleep(settle_s)
        left = len(_marked(mark))
    finally:
        _end(process, gently=False)
        end_marked(mark)
    orphans = orphaned_names() & names
    for name in orphans:
        (_SHARED / name).unlink(missing_ok=True)
    return Ran(
        exit_code=exit_code,
        wall_s=wall_s,
        stdout=out.read_text("utf-8", errors="replace"),
        stderr=err.read_text("utf-8", errors="replace"),
        left=left,
        orphans=tuple(sorted(orphans)),
    )


@contextmanager
def _watched_names(mark: str) -> Iterator[set[str]]:
    """Collect the names in /dev/shm that marked processes use; other processes make some, too."""
    names: set[str] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_WATCH_S):
            names.update(*(_names_of(process.pid) for process in _marked(mark)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield names
    finally:
        over.set()
        watcher.join()


def _end(process: subprocess.Popen[bytes], *, gently: bool) -> None:
    if gently and process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
    if process.poll() is None:
        process.kill()
        process.wait(10)


def _marked(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            alive = process.status() != psutil.STATUS_ZOMBIE
            if alive and process.environ().get(MARK_VARIABLE) == mark:
                found.append(process)
    return found


def end_marked(mark: str) -> None:
    """Kill every process that inherited the mark."""
    for _ in range(5):
        processes = _marked(mark)
        if not processes:
            return
        for process in processes:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(processes, timeout=2)


def orphaned_names() -> frozenset[str]:
    """Shared memory and semaphores that no living process uses (known on Linux only).

    It looks twice, because a name may be seen while it is being made or removed.
    """
    first = _unused_names()
    if not first:
        return first
    time.sleep(_SETTLE_S)
    return first & _unused_names()


def _unused_names() -> frozenset[str]:
    if not _SHARED.is_dir():
        return frozenset()
    there = {name for name in os.listdir(_SHARED) if _NAMES.match(name)}
    if not there:
        return frozenset()
    return frozenset(there.difference(*(_names_of(pid) for pid in psutil.pids())))


def _names_of(pid: int) -> set[str]:
    """Names in /dev/shm that a process maps or holds open."""
    used: set[str] = set()
    process = Path(f"/proc/{pid}")
    with suppress(OSError):
        used.update(_USED.findall((process / "maps").read_text(errors="replace")))
    with suppress(OSError):
        for handle in (process / "fd").iterdir():
            with suppress(OSError):
                used.update(_USED.findall(os.readlink(handle)))
    return used
