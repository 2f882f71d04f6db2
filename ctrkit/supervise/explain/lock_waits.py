"""Why a living process waits for a lock: of threads, after a fork, or of a file."""

from __future__ import annotations

import re

from ctrkit.supervise.explain.lock_origins import LockOrigin
from ctrkit.supervise.explain.scene import Process, Scene, place_of
from ctrkit.supervise.explain.sentences import (
    Cause,
    at,
    blame,
    is_worker,
    others_in_user_code,
)
from ctrkit.supervise.explain.stacks import Frame, Thread, find_frame, is_users

NO_FORK = "start the workers with spawn, or use a loader without processes"
_LOCK = re.compile(r"\bwith\b.*(lock|mutex|cond)|\.acquire\(|\block\b", re.IGNORECASE)


def lock(scene: Scene, process: Process) -> Cause | None:
    """It waits for a lock, or to be woken by a thread."""
    forked = is_forked(scene, process)
    if not takes_lock(scene, process):
        in_c = process.wait is not None and process.wait.syscall == "futex"
        if not (in_c and forked and process.in_loop):
            return None
    if process.pid in scene.holders and not _waits_to_be_woken(process.stack):
        return _between_processes(scene, process)
    if forked and not others_in_user_code(process):
        if _waits_to_be_woken(process.stack):
            return blame(scene, process, "thread over fork", "waits to be woken by a thread, and "
                         "threads of the main process are not copied when a worker is forked",
                         fix=f"start the thread in the worker (`worker_init_fn`), or {NO_FORK}",
                         about="thread over fork")  # fmt: skip
        origin = scene.locks.get(process.pid, LockOrigin.UNKNOWN)
        if origin == LockOrigin.BEFORE_FORK:
            return blame(scene, process, "lock over fork", "waits for a lock that a thread of "
                         "the main process most likely held when the worker was forked",
                         fix=NO_FORK, about="lock over fork")  # fmt: skip
        if origin == LockOrigin.UNKNOWN:
            return blame(scene, process, "lock over fork or deadlock", "waits for a lock that is "
                         "never released: a thread of the main process held it when the "
                         "worker was forked, or the worker holds it itself",
                         fix=f"if the lock is older than the worker, {NO_FORK}; if one thread "
                         "takes it twice, it must be an RLock", about="lock over fork")  # fmt: skip
        return blame(scene, process, "deadlock", "waits for a lock that it made or holds itself",
                     fix="a lock that one thread takes twice must be an RLock")  # fmt: skip
    if _waits_to_be_woken(process.stack):
        return blame(scene, process, "waits for a thread", "waits to be woken by a thread that "
                     "does not do it", fix="see in the stacks what that thread does")  # fmt: skip
    alone = "" if scene.workers else "; no worker is involved"
    return blame(scene, process, "deadlock", f"waits for a lock that is never released{alone}",
                 fix="see who holds it; a lock that is taken twice by one thread must be an RLock",
                 )  # fmt: skip


def _between_processes(scene: Scene, process: Process) -> Cause:
    """It waits for a lock that all processes share, so neither a fork nor a thread is to blame."""
    pid = scene.holders[process.pid]
    holder = next((one for one in scene.processes if one.pid == pid), None)
    if holder is None:
        says = (
            "waits for a lock of multiprocessing, which all processes share; who holds it cannot "
            "be told: another of them, the process itself, or one that ended without a release"
        )
        fix = "take it by `with`, for as short as can be; one that is killed never releases it"
    else:
        where = at(scene, place_of(holder)).strip() or "elsewhere"
        says = (
            f"waits for a lock of multiprocessing that {scene.name(holder)} holds, which stands "
            f"{where}"
        )
        fix = "see what the holder waits for; it must not wait with the lock taken"
    return blame(scene, process, "lock of another process", says, fix=fix)


def file_lock(scene: Scene, process: Process) -> Cause | None:
    """It waits for a lock on a file."""
    wait = process.wait
    by_call = wait is not None and wait.syscall in ("flock", "fcntl")
    by_stack = find_frame(process.stack, "filelock/_api.py", "acquire")
    if not by_call and not by_stack:
        return None
    which = f" on {wait.target}" if wait and by_call and wait.target else ""
    return blame(scene, process, "file lock", f"waits for a file lock{which} that another process "
                 "or another open file holds", fix="release the file lock before the loader needs "
                 "it; it is shared by what was forked with it open")  # fmt: skip


def takes_lock(scene: Scene, process: Process) -> bool:
    """Whether it takes a lock, by its innermost call, or by the source line of a C call."""
    wait = process.wait
    if wait is not None and wait.syscall is not None and wait.syscall != "futex":
        return False
    stack = process.stack
    if not stack:
        return False
    if _waits_to_be_woken(stack) or _lock_call(stack[0]):
        return True
    return is_users(stack[0]) and bool(_LOCK.search(scene.source(stack[0])))


def _lock_call(frame: Frame) -> bool:
    takes = ("acquire", "__enter__", "_acquire_restore", "wait", "wait_for", "_acquireLock")
    files = ("/threading.py", "multiprocessing/synchronize.py", "/logging/__init__.py")
    return any(frame.is_in(file, *takes) for file in files)


def _waits_to_be_woken(stack: Thread) -> bool:
    innermost = stack[:4]
    return any(
        frame.is_in("/threading.py", "wait", "wait_for", "join", "_wait_for_tstate_lock")
        or frame.is_in("/queue.py", "get", "put", "join")
        or frame.is_in("concurrent/futures/_base.py", "result", "wait")
        for frame in innermost
    )


def is_forked(scene: Scene, process: Process) -> bool:
    """Whether it is a forked worker, which has the memory and locks of the moment of the fork."""
    return is_worker(scene, process) and scene.start_method == "fork"
