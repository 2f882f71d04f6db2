"""Collects evidence of a failed trial: first by looking only, last by a signal that may wake it."""

from __future__ import annotations

import linecache
import os
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import psutil

from ctrkit.core.child_records import WorkerExit
from ctrkit.core.files import write_atomically, write_json
from ctrkit.core.progress import Progress, read_workers
from ctrkit.core.stacks_signal import listened_signal, stacks_path
from ctrkit.supervise.explain import passive
from ctrkit.supervise.explain.causes import Cause, explain
from ctrkit.supervise.explain.lock_holders import lock_holders_of
from ctrkit.supervise.explain.lock_origins import lock_origins_of
from ctrkit.supervise.explain.scene import Process, Role, Scene, narrowed, place_of, start_method_of
from ctrkit.supervise.explain.stack_readers import by_py_spy, py_spy_program
from ctrkit.supervise.explain.stacks import Frame, Thread, is_users, parse_dump, user_frame

PROCESSES = "processes.json"
TAIL_BYTES = 64_000
_PY_SPY_PROCESSES = 8
_DUMP_S, _DUMP_SETTLED_S, _POLL_S = 2.0, 0.1, 0.02
_RESUME_S = 1.0
_ALL_S = 20.0


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The evidence found.

    Attributes:
        woken: progress resumed after the signal.
        place: half a sentence on where the guilty process is; None if unknown.
    """

    scene: Scene
    cause: Cause | None = None
    woken: bool = False

    @property
    def place(self) -> str | None:
        if self.cause is None or self.cause.place is None:
            return None
        return f"{self.cause.guilty or 'a worker'} is at {self.cause.place}"


def save_tails(folder: Path, child_folder: Path) -> None:
    """Save the last lines of the child's stdout and stderr."""
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
    known: Scene | None = None,
) -> Evidence:
    """Examine a living family, and save the evidence into `folder`.

    Writes `processes.json`, `py-spy-<pid>.json` if py-spy is installed and allowed,
    `stacks-<pid>.txt` of every process that has armed faulthandler, and `cause.json`. Then checks
    whether progress resumed, which a signal can cause. Takes 2 s, at most about 20 s; skips the
    rest as soon as `hurry` returns true.

    Args:
        folder: for the evidence; made if missing.
        child_folder: where the family writes its progress and its stacks.
        root_pid: pid of the child.
        read: returns the child's latest progress.
        hurry: returns whether to skip what takes time.
        known: what is known already: verdict, stage, cell, output. The rest of the scene is filled
            in here.
    """
    deadline_s = time.monotonic() + _ALL_S

    def enough() -> bool:
        return hurry() or time.monotonic() > deadline_s

    folder.mkdir(parents=True, exist_ok=True)
    before = read()
    looked = _with_progress(passive.look(root_pid, enough), child_folder)
    write_json(folder / PROCESSES, looked)
    spied = _run_py_spy(folder, [one.pid for one in looked[:_PY_SPY_PROCESSES]], enough)
    dumps = {} if enough() else _dump_all(looked, child_folder)
    woken = bool(dumps) and _resumed(before, read, enough)
    if not enough():
        silent = [one for one in looked if one.pid not in spied]
        dumps |= _dump_stopped(silent, child_folder)
    for pid, text in dumps.items():
        write_atomically(folder / f"stacks-{pid}.txt", text.encode())
    stacks = spied | {pid: parse_dump(text) for pid, text in dumps.items()}
    known = replace(known or Scene(root_pid=root_pid), limits=passive.limits_of(root_pid))
    if before is not None:
        known = replace(known, step=before.step)
    scene = _fill(known, looked, stacks, child_folder)
    return Evidence(scene=scene, cause=save_cause(folder, scene), woken=woken)


def read_processes(path: Path) -> list[Process]:
    """The processes in a `processes.json`; empty if the file is something else.

    Unknown fields are ignored.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Process])
    except (OSError, msgspec.DecodeError):
        return []


def examine_ended(folder: Path, child_folder: Path, known: Scene) -> Evidence:
    """Explain a child that has ended, from its output and what its workers left, into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    scene = _fill(known, [], {}, child_folder)
    for pid, text in scene.crashes.items():
        write_atomically(folder / f"stacks-{pid}.txt", text.encode())
    return Evidence(scene=scene, cause=save_cause(folder, scene))


def save_cause(folder: Path, scene: Scene) -> Cause | None:
    """Explain the scene, and save the cause as `cause.json`."""
    cause = explain(scene)
    if cause is not None and scene.others_wait:
        cause = replace(cause, sentence=f"{cause.sentence}; the other ranks wait for it")
    if cause is not None:
        write_json(folder / "cause.json", cause)
    return cause


def _fill(
    known: Scene,
    looked: Sequence[Process],
    stacks: dict[int, tuple[Thread, ...]],
    child_folder: Path,
) -> Scene:
    """The scene with all processes, including ended ones, and their stacks."""
    processes = [replace(one, threads=stacks.get(one.pid, ())) for one in looked]
    dead = {one.pid: one for one in known.dead}
    for one in processes:
        started = stacks_path(child_folder, one.pid).exists()
        if one.is_dead and one.exit_code is not None and started and one.pid != known.root_pid:
            worker = one.progress.worker if one.progress else None
            dead.setdefault(
                one.pid, WorkerExit(pid=one.pid, worker=worker, exit_code=one.exit_code)
            )
    seen = {process.pid for process in processes}
    gone = {one.pid for one in read_workers(child_folder)} | set(dead)
    processes += _with_progress(
        [
            Process(
                pid=pid,
                status=psutil.STATUS_DEAD,
                exit_code=dead[pid].exit_code if pid in dead else None,
            )
            for pid in sorted(gone - seen)
        ],
        child_folder,
    )
    in_io = any(one.status == psutil.STATUS_DISK_SLEEP for one in processes)
    scene = replace(known, processes=tuple(processes))
    if known.is_script:
        scene = _with_workers(narrowed(scene))
    return replace(
        scene,
        dead=tuple(dead.values()),
        stderr=known.stderr or tail(child_folder / "stderr.txt"),
        crashes=_crashes(dead, child_folder),
        # the source files may be on the same hanging disk
        sources={} if in_io else sources_of(processes),
        locks={} if in_io else lock_origins_of(processes),
        holders={} if in_io else lock_holders_of(processes),
    )


def _with_workers(scene: Scene) -> Scene:
    """The scene of a script with the number of its workers, which no cell tells."""
    workers = [one for one in scene.processes if scene.role(one) is Role.WORKER]
    method = start_method_of(workers, scene.processes)
    return replace(scene, workers=len(workers), start_method=method)


def _crashes(pids: Iterable[int], child_folder: Path) -> dict[int, str]:
    """What Python's fault handler wrote for crashed processes, by pid."""
    texts = {pid: tail(stacks_path(child_folder, pid)) for pid in pids}
    return {pid: text for pid, text in texts.items() if "Fatal Python error" in text}


def _with_progress(processes: Sequence[Process], child_folder: Path) -> list[Process]:
    """The processes, each with its own progress as a worker."""
    progress = {one.pid: one for one in read_workers(child_folder)}
    return [replace(one, progress=progress.get(one.pid)) for one in processes]


def sources_of(processes: Sequence[Process]) -> dict[Frame, str]:
    """The source lines at which user code of the processes is."""
    frames = {place_of(process) for process in processes}
    for process in processes:
        frames |= {user_frame(thread) for thread in process.threads}
    found = {}
    for frame in frames:
        if frame is not None and is_users(frame) and Path(frame.file).is_file():
            found[frame] = linecache.getline(frame.file, frame.line).strip()[:120]
    linecache.clearcache()
    return found


def _resumed(
    before: Progress | None, read: Callable[[], Progress | None], enough: Callable[[], bool]
) -> bool:
    deadline_s = time.monotonic() + _RESUME_S
    while time.monotonic() < deadline_s and not enough():
        after = read()
        if after is not None and (before is None or after.writes != before.writes):
            return True
        time.sleep(0.05)
    return False


def _run_py_spy(
    folder: Path, pids: Sequence[int], enough: Callable[[], bool]
) -> dict[int, tuple[Thread, ...]]:
    """Stacks read from outside, also of stopped processes, and of those that cannot be asked."""
    program = py_spy_program()
    found: dict[int, tuple[Thread, ...]] = {}
    for pid in pids if program else ():
        if enough():
            break
        read = by_py_spy(str(program), pid)
        if read.timed_out:
            break  # if it did not answer once, it will not answer for the others
        if read.raw:
            write_atomically(folder / f"py-spy-{pid}.json", read.raw)
            found[pid] = read.threads
    return found


def _dump_all(
    looked: Sequence[Process], child_folder: Path, then: signal.Signals | None = None
) -> dict[int, str]:
    """Ask all processes at once for their stacks, then read the files (one per process).

    The files are opened first: a process that the signal wakes may end and remove its file.
    """
    with ExitStack() as stack:
        files = {}
        for one in looked:
            with suppress(OSError):
                if (number := _signal_for(one, child_folder)) is not None:
                    file = stack.enter_context(open(stacks_path(child_folder, one.pid), "rb"))
                    file.seek(0, os.SEEK_END)
                    os.kill(one.pid, number)
                    if then is not None:
                        os.kill(one.pid, then)
                    files[one.pid] = file
        texts = dict.fromkeys(files, b"")
        deadline_s, settled_s = time.monotonic() + _DUMP_S, time.monotonic() + _DUMP_SETTLED_S
        while time.monotonic() < min(deadline_s, settled_s) or (
            not all(texts.values()) and time.monotonic() < deadline_s
        ):
            time.sleep(_POLL_S)
            for pid, file in files.items():
                if more := file.read():
                    texts[pid] += more
                    settled_s = time.monotonic() + _DUMP_SETTLED_S
    return {pid: text.decode("utf-8", errors="replace") for pid, text in texts.items() if text}


def _dump_stopped(looked: Sequence[Process], child_folder: Path) -> dict[int, str]:
    """Ask stopped processes for stacks: each continues for a moment, and then stops again.

    This comes last, because it may end the hang. The signal for the stacks is handled first, so the
    stacks show where the process was stopped. A process that handles SIGCONT is left alone, since
    the handler is the user's.
    """
    stopped = [
        one for one in looked
        if one.status == psutil.STATUS_STOPPED and not passive.catches(one.pid, signal.SIGCONT)
    ]  # fmt: skip
    awake = [replace(one, status=psutil.STATUS_SLEEPING) for one in stopped]
    try:
        return _dump_all(awake, child_folder, then=signal.SIGCONT) if stopped else {}
    finally:
        for one in stopped:
            with suppress(OSError):
                os.kill(one.pid, signal.SIGSTOP)


def _signal_for(process: Process, child_folder: Path) -> int | None:
    """The signal that asks the process for its stacks; None if it must not get one."""
    if process.is_stopped or process.is_dead:
        return None
    if any(wait.syscall == "rt_sigtimedwait" for wait in process.waits):
        return None  # the user's `sigwait` might take the signal
    number = listened_signal(child_folder, process.pid)
    if number is None or passive.catches(process.pid, number) is False:
        return None
    return number
