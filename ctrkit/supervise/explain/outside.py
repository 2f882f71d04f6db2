"""Explains a process that ctrkit did not start, from outside and without any signal."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from ctrkit.core.child_records import WorkerExit
from ctrkit.core.errors import UsageError
from ctrkit.supervise.explain import passive
from ctrkit.supervise.explain.causes import Cause, explain
from ctrkit.supervise.explain.endpoints import name_targets
from ctrkit.supervise.explain.evidence import sources_of
from ctrkit.supervise.explain.kernel_waits import cause_of_waits
from ctrkit.supervise.explain.lock_holders import lock_holders_of
from ctrkit.supervise.explain.lock_origins import lock_origins_of
from ctrkit.supervise.explain.macos import with_native_waits
from ctrkit.supervise.explain.movement import Look, Movement, State, judge_movement
from ctrkit.supervise.explain.permissions import Missing, missing, read_access
from ctrkit.supervise.explain.scene import (
    Process,
    Role,
    Scene,
    descendants,
    late_rank,
    start_method_of,
)
from ctrkit.supervise.explain.stack_readers import by_py_spy, by_remote_exec, py_spy_program
from ctrkit.supervise.explain.stacks import Thread
from ctrkit.supervise.explain.training_family import (
    Listed,
    TrainingFamily,
    find_training,
    list_processes,
)
from ctrkit.supervise.sampler import TreeSampler

_MAX_READ, _MAX_PROCESSES = 24, 1024  # enough for eight ranks with their workers
_SAMPLES_BETWEEN = 4


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What was found out about a process.

    Args:
        pid: the pid asked about.
        family: the process tree that it belongs to.
        listed: the tree's processes as the system lists them.
        processes: all of the tree, its top first, as last seen.
        scene: the training process and what is below it; None without a Python process.
        cause: why it makes no progress; None if it does, or if unknown.
        movement: what two looks showed; None after only one.
        read_by: how Python stacks were read; empty if none were.
        missing: what prevented reading the stacks; None if they were read.
    """

    pid: int
    family: TrainingFamily
    listed: Mapping[int, Listed]
    processes: tuple[Process, ...]
    scene: Scene | None
    cause: Cause | None = None
    movement: Movement | None = None
    read_by: str = ""
    missing: Missing | None = None


def explain_process(
    pid: int,
    wait_s: float | None = None,
    sleep: Callable[[float], None] = time.sleep,
    use_stacks: bool = True,
) -> Explanation:
    """Examine a process and its whole tree; twice, if there is time to wait.

    Args:
        pid: any process of the training: its shell, its launcher, itself or a worker.
        wait_s: seconds between two looks; None: look once.
        sleep: waits for so many seconds.
        use_stacks: whether to read Python stacks.

    Raises:
        UsageError: there is no such process, or it may not be examined.
    """
    listed = list_processes()
    check_pid(pid, listed)
    family = find_training(pid, listed)
    reader = _Reader(family.main_pid, use_stacks)
    first = _look(family, listed, reader)
    movement = None
    if wait_s is not None:
        between = _sample(family.main_pid, reader, wait_s, sleep)
        listed = list_processes()
        if family.main_pid not in listed or listed[family.main_pid].status == psutil.STATUS_ZOMBIE:
            raise UsageError(f"pid {family.main_pid} ended while ctrkit looked at it")
        last = _look(family, listed, reader)
        movement = judge_movement(first.look, last.look, between)
        first = last
    return _explanation(pid, family, listed, first, movement, reader)


def check_pid(pid: int, listed: Mapping[int, Listed]) -> None:
    """Raise a UsageError, with advice, for a pid that cannot be explained."""
    if pid <= 0 or pid not in listed:
        raise UsageError(f"there is no process {pid}; `ps -ef` or `pgrep -f train.py` finds it")
    one = listed[pid]
    if pid == os.getpid():
        raise UsageError(f"pid {pid} is this command itself; name the training's process")
    if one.status == psutil.STATUS_ZOMBIE:
        raise UsageError(_zombie_words(one, listed))
    mine = os.geteuid()
    with suppress(psutil.Error, OSError):
        process = psutil.Process(pid)
        if mine not in (0, process.uids().real):
            raise UsageError(
                f"pid {pid} ({one.name}) belongs to {process.username()}, not to you; look at it "
                f"as root: sudo ctrkit explain {pid}"
            )
    if not one.command and pid != 1 and one.parent_pid in (0, 2):
        raise UsageError(f"pid {pid} ({one.name}) is a thread of the kernel, not a program")


def _zombie_words(one: Listed, listed: Mapping[int, Listed]) -> str:
    code = passive.exit_code(one.pid)
    how = "" if code is None else f" with {_exit_words(code)}"
    parent = listed.get(one.parent_pid)
    whose = f"its parent, pid {one.parent_pid}" + (f" ({parent.name})," if parent else ",")
    return (
        f"pid {one.pid} ({one.name}) is a zombie: it has ended{how}, and {whose} has not taken "
        f"note; look at that one: ctrkit explain {one.parent_pid}"
    )


def _exit_words(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {-code}"


@dataclass(frozen=True, kw_only=True)
class _Seen:
    processes: tuple[Process, ...]
    look: Look


class _Reader:
    """Reads stacks as long as that works, and remembers why it stopped working."""

    def __init__(self, main_pid: int, use_stacks: bool) -> None:
        self._main_pid = main_pid
        self._program = py_spy_program() if use_stacks else None
        self._use = use_stacks
        self.by, self.problem = "", ""

    def read(self, pids: Sequence[int]) -> dict[int, tuple[Thread, ...]]:
        """Stacks by pid, for the processes that could be read."""
        found: dict[int, tuple[Thread, ...]] = {}
        for pid in pids[:_MAX_READ] if self._use else ():
            threads = self._read(pid)
            if threads:
                found[pid] = threads
            elif pid == self._main_pid:
                return found  # if the first process cannot be read, the others cannot either
        return found

    def _read(self, pid: int) -> tuple[Thread, ...]:
        problems = []
        if self._program is not None:
            read = by_py_spy(self._program, pid)
            if read.threads:
                self.by = read.by
                return read.threads
            problems.append(read.problem)
        read = by_remote_exec(pid)
        if read.threads:
            self.by = read.by
            return read.threads
        if pid == self._main_pid:
            self.problem = "; ".join(problems)
        return ()

    def missing(self) -> Missing | None:
        """What is missing; None if stacks were read, or were not wanted."""
        if self.by or not self._use:
            return None
        return missing(read_access(self._main_pid, self._program), self.problem)


def _look(family: TrainingFamily, listed: Mapping[int, Listed], reader: _Reader) -> _Seen:
    """The whole tree, with stacks of its Python processes, the training one first."""
    sampler = TreeSampler(family.main_pid)
    processes = name_targets(
        with_native_waits(passive.look(family.top_pid, lambda: False, _MAX_PROCESSES))
    )
    if not any(one.pid == family.main_pid for one in processes):
        raise UsageError(f"pid {family.main_pid} ended while ctrkit looked at it")
    python = [one.pid for one in processes if one.pid in listed and listed[one.pid].python]
    python = [one for one in python if not listed[one].is_helper]
    python.sort(key=lambda one: (one != family.main_pid, one not in family.ranks))
    stacks = reader.read(python)
    seen = tuple(
        replace(one, threads=_absolute(one.pid, stacks.get(one.pid, ()))) for one in processes
    )
    tree = sampler.sample(time.monotonic(), weigh=False)
    scene = _scene(family.main_pid, family, seen)
    workers = scene.living_workers()
    watched = [family.main_pid, *(one.pid for one in workers)]
    look = Look(
        taken_s=tree.taken_s,
        main=scene.main,
        workers=tuple(workers),
        cpu_s=tree.wanted_s,
        read_bytes={pid: count for pid in watched if (count := _read_bytes(pid)) is not None},
    )
    return _Seen(processes=seen, look=look)


def _absolute(pid: int, threads: tuple[Thread, ...]) -> tuple[Thread, ...]:
    """The threads with relative file names resolved in the process's folder."""
    if all(frame.file.startswith(("/", "<")) for thread in threads for frame in thread):
        return threads
    try:
        folder = psutil.Process(pid).cwd()
    except (psutil.Error, OSError):
        return threads
    return tuple(
        tuple(
            frame
            if frame.file.startswith(("/", "<"))
            else replace(frame, file=os.path.join(folder, frame.file))
            for frame in thread
        )
        for thread in threads
    )


def _read_bytes(pid: int) -> int | None:
    """Bytes that the main thread and a pinning thread have read so far (Linux)."""
    total = None
    for thread in Path(f"/proc/{pid}/task").glob("[0-9]*"):
        with suppress(OSError, StopIteration, ValueError):
            pins = (thread / "comm").read_text("utf-8", "replace").startswith("pt_data_pin")
            if int(thread.name) == pid or pins:
                lines = (thread / "io").read_text().splitlines()
                read = next(int(line[7:]) for line in lines if line.startswith("rchar: "))
                total = (total or 0) + read
    return total


def _sample(
    main_pid: int, reader: _Reader, wait_s: float, sleep: Callable[[float], None]
) -> list[Thread]:
    """Wait, and read the main thread's stack a few times meanwhile."""
    stacks, until_s = [], time.monotonic() + wait_s
    pause_s = wait_s / (_SAMPLES_BETWEEN + 1)
    for _ in range(_SAMPLES_BETWEEN):
        sleep(pause_s)
        if time.monotonic() + pause_s > until_s:
            break
        found = reader.read([main_pid]).get(main_pid)
        if found:
            stacks.append(found[-1])
    sleep(max(0.0, until_s - time.monotonic()))
    return stacks


def _scene(main_pid: int, family: TrainingFamily, seen: Sequence[Process]) -> Scene:
    """The scene of the training process and its descendants."""
    processes = descendants(main_pid, seen)
    rank = family.ranks.get(main_pid)
    scene = Scene(
        root_pid=main_pid,
        processes=tuple(processes),
        main_name="the main process" if rank is None else f"rank {rank} (pid {main_pid})",
        ranks=family.ranks,
    )
    workers = [one for one in processes if scene.role(one) is Role.WORKER]
    dead = tuple(
        WorkerExit(pid=one.pid, worker=None, exit_code=one.exit_code)
        for one in workers
        if one.is_dead and one.exit_code is not None
    )
    return replace(
        scene, workers=len(workers), dead=dead, start_method=start_method_of(workers, processes)
    )


def _explanation(
    pid: int, family: TrainingFamily, listed: Mapping[int, Listed], seen: _Seen,
    movement: Movement | None, reader: _Reader,
) -> Explanation:  # fmt: skip
    tree = {one.pid: listed[one.pid] for one in seen.processes if one.pid in listed}
    if not listed[family.main_pid].python:
        return Explanation(
            pid=pid, family=family, listed=tree, processes=seen.processes, scene=None,
            movement=movement,
        )  # fmt: skip
    main_pid, waited_for = family.main_pid, False
    if family.ranks:
        late = late_rank(seen.processes, family.ranks)
        main_pid, waited_for = late or main_pid, late is not None
    scene = _scene(main_pid, family, seen.processes)
    in_io = any(one.status == psutil.STATUS_DISK_SLEEP for one in seen.processes)
    if not in_io:
        locks = lock_origins_of(scene.processes)
        holders = lock_holders_of(scene.processes)
        sources = sources_of(scene.processes)
        scene = replace(scene, sources=sources, locks=locks, holders=holders)
    burning = movement is not None and movement.state is State.BURNING
    scene = replace(scene, verdict="stalled" if burning else "deadlock")
    cause = explain(scene) if scene.main.stack or scene.main.is_stopped else cause_of_waits(scene)
    if cause is not None and waited_for:
        cause = replace(cause, sentence=f"{cause.sentence}; the other ranks wait for it")
    return Explanation(
        pid=pid, family=family, listed=tree, processes=seen.processes, scene=scene, cause=cause,
        movement=movement, read_by=reader.by, missing=reader.missing(),
    )  # fmt: skip
