"""Ends a child with its whole family, and removes shared memory that was provably theirs."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from ctrkit.core.lifeline import RUN_ID_VARIABLE, sockets_folder

_LINUX = sys.platform.startswith("linux")
_SHARED = Path("/dev/shm")
_OWN_NAMES = re.compile(r"(torch_|sem\.mp-|psm_)")
# These helpers clean up after killed processes, and end by themselves afterwards.
_SWEEPERS = ("resource_tracker", "torch_shm_manager")
_SWEEP_S = 3.0
_KILL_S = 5.0
_REAP_S = 2.0
_PR_SET_CHILD_SUBREAPER, _PR_GET_CHILD_SUBREAPER = 36, 37


@dataclass(frozen=True, kw_only=True)
class Family:
    """A child with all its descendants, its session, and every process with its run id.

    `created_s` distinguishes the root from a later process with the same pid.
    """

    root_pid: int
    created_s: float
    run_id: str

    @classmethod
    def of(cls, root_pid: int, run_id: str) -> Family:
        """The family of a process that has just been started."""
        try:
            created_s = float(psutil.Process(root_pid).create_time())
        except psutil.Error:
            created_s = time.time()
        return cls(root_pid=root_pid, created_s=created_s, run_id=run_id)


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What `end_family` did: pids it killed, pids that did not end, files it removed."""

    killed: tuple[int, ...] = ()
    left: tuple[int, ...] = ()
    unlinked: tuple[str, ...] = ()


def find_family(family: Family) -> list[psutil.Process]:
    """The living processes of the family, without zombies and never this process."""
    everyone = {process.pid: process for process in psutil.process_iter()}
    members = {pid for pid, process in everyone.items() if _is_seed(process, family)}
    parents = {pid: _parent(process) for pid, process in everyone.items()}
    grown = True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in members} - members
        members |= more
        grown = bool(more)
    members.discard(os.getpid())
    return [everyone[pid] for pid in sorted(members) if _is_alive(everyone[pid])]


def end_family(family: Family) -> Ended:
    """Stop all processes, look again, kill all but torch's sweepers, then kill what remains.

    The sweepers get a moment to clean up. Takes about 13 s at worst. Whoever started the root must
    reap it, and then call `reap_orphans`.
    """
    members = _stop_all(family)
    if not members:
        return Ended()
    shared = set().union(*(_shared_files(process) for process in members.values()))
    sweepers = {pid for pid, process in members.items() if _is_sweeper(process)}
    _kill(process for pid, process in members.items() if pid not in sweepers)
    _wait_gone((p for pid, p in members.items() if pid not in sweepers), _KILL_S)
    _wait_gone((members[pid] for pid in sweepers), _SWEEP_S)
    deadline_s = time.monotonic() + _KILL_S
    while (left := find_family(family)) and time.monotonic() < deadline_s:
        members |= {process.pid: process for process in left}
        _kill(left)
        _wait_gone(left, 0.5)
    return Ended(
        killed=tuple(sorted(members)),
        left=tuple(process.pid for process in left),
        unlinked=tuple(sorted(_unlink(shared, family.created_s))),
    )


def reap_orphans(family: Family, killed: Iterable[int]) -> None:
    """Reap zombies of the family that became children of this process; takes at most 2 s.

    Call it when the root has been reaped: until its last thread has ended, its children are still
    its own. Only killed pids, or pids in the root's session, are touched.
    """
    deadline_s = time.monotonic() + _REAP_S
    waiting = {pid for pid in killed if pid != family.root_pid} | _zombies(family)
    while waiting := {pid for pid in waiting if not _reaped(pid)}:
        if time.monotonic() >= deadline_s:
            return
        time.sleep(0.01)


def _reaped(pid: int) -> bool:
    """Whether the process is gone; reaps it if it is a child of this process."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return not psutil.pid_exists(pid)


def _zombies(family: Family) -> set[int]:
    """Zombie children of this process in the family's session."""
    found = set()
    for process in psutil.Process().children():
        with suppress(psutil.Error, OSError):
            zombie = process.status() == psutil.STATUS_ZOMBIE
            if zombie and os.getsid(process.pid) == family.root_pid:
                found.add(process.pid)
    return found


def remove_sockets(run_id: str) -> None:
    """Remove the folder of the family's sockets, if there is one."""
    shutil.rmtree(sockets_folder(run_id), ignore_errors=True)


@contextmanager
def subreaper() -> Iterator[None]:
    """Within this context, orphans of children become children of this process (Linux)."""
    if not _LINUX:
        yield
        return
    libc = ctypes.CDLL(None)
    before = ctypes.c_int()
    libc.prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(before), 0, 0, 0)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        libc.prctl(_PR_SET_CHILD_SUBREAPER, before.value, 0, 0, 0)


def _is_seed(process: psutil.Process, family: Family) -> bool:
    try:
        older_s = family.created_s - process.create_time()
        if older_s > 1:
            return False
        if process.pid == family.root_pid:
            return bool(older_s > -1)
        if os.getsid(process.pid) == family.root_pid:
            return True
        return bool(process.environ().get(RUN_ID_VARIABLE) == family.run_id)
    except (psutil.Error, OSError):
        return False


def _parent(process: psutil.Process) -> int | None:
    try:
        return int(process.ppid())
    except psutil.Error:
        return None


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _is_sweeper(process: psutil.Process) -> bool:
    try:
        words = " ".join(process.cmdline())
    except psutil.Error:
        return False
    return any(name in words for name in _SWEEPERS)


def _stop_all(family: Family) -> dict[int, psutil.Process]:
    """All members, stopped, so that none can start new processes while they are counted."""
    members: dict[int, psutil.Process] = {}
    for _ in range(10):
        new = [process for process in find_family(family) if process.pid not in members]
        if not new:
            break
        for process in new:
            members[process.pid] = process
            if not _is_sweeper(process):
                with suppress(psutil.Error):
                    process.suspend()
    return members


def _kill(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.Error):
            process.kill()


def _wait_gone(processes: Iterable[psutil.Process], timeout_s: float) -> None:
    # Not psutil's wait: it would take the root's exit code from whoever started it.
    waiting = list(processes)
    deadline_s = time.monotonic() + timeout_s
    while waiting := [process for process in waiting if _is_alive(process)]:
        if time.monotonic() >= deadline_s:
            return
        time.sleep(0.01)


def _shared_files(process: psutil.Process) -> set[str]:
    """Files in /dev/shm that the process maps or holds open, of the kinds torch and Python make."""
    if not _LINUX:
        return set()
    paths: set[str] = set()
    with suppress(OSError):
        maps = Path(f"/proc/{process.pid}/maps").read_text(errors="replace")
        paths.update(
            line.split(maxsplit=5)[-1] for line in maps.splitlines() if "/dev/shm/" in line
        )
    with suppress(OSError):
        for handle in Path(f"/proc/{process.pid}/fd").iterdir():
            with suppress(OSError):
                paths.add(os.readlink(handle))
    return {
        path.rpartition("/")[2]
        for path in paths
        if path.startswith(f"{_SHARED}/") and _OWN_NAMES.match(path.rpartition("/")[2])
    }


def _unlink(names: set[str], created_s: float) -> list[str]:
    """Remove files that are not older than the family and that no living process uses.

    Other jobs share /dev/shm, and a child may have used older files there.
    """
    present = {name for name in names if _is_newer(_SHARED / name, created_s)}
    if present:
        present -= set().union(*(_shared_files(process) for process in psutil.process_iter()))
    removed = []
    for name in present:
        with suppress(OSError):
            (_SHARED / name).unlink()
            removed.append(name)
    return removed


def _is_newer(path: Path, created_s: float) -> bool:
    try:
        return path.stat().st_ctime >= created_s - 1
    except OSError:
        return False
