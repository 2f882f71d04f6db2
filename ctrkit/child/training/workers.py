"""Watches torch's DataLoader workers from inside: their progress, their stamps, how they end.

`watch_workers` wraps torch's worker loop. The data set, the indices and the random streams pass
through unchanged. A worker only writes whether it is busy or waits and, if asked to, when it made
each batch.

In a real run, workers ignore a stop signal that a scheduler sends to all processes at once: the
loop still needs them for its step, and ends them itself.

Needs torch and the standard library only, since it also runs in a script's own interpreter.
"""

from __future__ import annotations

import inspect
import signal
import time
from contextlib import nullcontext, suppress
from functools import partial
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any

import torch.utils.data._utils.worker as torch_worker
from torch._utils import ExceptionWrapper

from ctrkit.child.training.stamps import (
    StampWriter,
    ring_path,
    stamp_sending,
    stamped_collate,
    wanted,
)
from ctrkit.core import stops
from ctrkit.core.lifeline import child_folder
from ctrkit.core.progress import WorkerStage, WorkerWriter, read_workers, worker_path
from ctrkit.core.stacks_signal import keep_crashes, stacks_path

if TYPE_CHECKING:
    from ctrkit.core.child_records import WorkerExit

# How long to wait for a worker's death to become visible, by the error it may have caused. A broken
# connection surely means a death; a RuntimeError may be torch's message of one, or another.
_DYING_S: dict[type[BaseException], float] = {OSError: 5.0, EOFError: 5.0, RuntimeError: 1.0}
_NO_BATCH = (torch_worker._IterableDatasetStopIteration, ExceptionWrapper)
_torch_worker_loop = torch_worker._worker_loop
_torch_start = BaseProcess.start
_started: list[Any] = []  # the multiprocessing Popen of every process that may still matter
_outlive_stops = False
_ended_here: set[int] = set()  # pids of workers that this process has ended itself


def watch_workers(*, outlive_stops: bool = False) -> None:
    """From now on, DataLoader workers write their progress, and their exit codes are kept.

    Args:
        outlive_stops: workers ignore stop signals until this process ends them.
    """
    global _outlive_stops
    _outlive_stops = outlive_stops
    setattr(torch_worker, "_worker_loop", watched_worker_loop)  # noqa: B010 - workers get its name
    setattr(BaseProcess, "start", _start)  # noqa: B010


def watched_worker_loop(*arguments: Any) -> None:
    """The worker loop of torch, with its two queues watched."""
    folder = child_folder()
    if folder is None:
        return _torch_worker_loop(*arguments)
    try:
        bound = inspect.signature(_torch_worker_loop).bind(*arguments)
        writer = WorkerWriter(folder, bound.arguments["worker_id"])
        stamps = StampWriter(folder, bound.arguments["worker_id"]) if wanted() else None
        for name, watched in (("index_queue", _IndexQueue), ("data_queue", _DataQueue)):
            bound.arguments[name] = watched(bound.arguments[name], writer, stamps)
        if stamps is not None:
            bound.arguments["collate_fn"] = stamped_collate(
                bound.arguments["collate_fn"], stamps.fetched
            )
            stamp_sending(stamps)
    except (TypeError, KeyError, OSError):  # another version of torch: run its loop unwatched
        return _torch_worker_loop(*arguments)
    return _torch_worker_loop(*bound.args)


class _Queue:
    def __init__(self, queue: Any, writer: WorkerWriter, stamps: StampWriter | None) -> None:
        self._queue, self._writer, self._stamps = queue, writer, stamps

    def __getattr__(self, name: str) -> Any:
        return getattr(self._queue, name)


class _IndexQueue(_Queue):
    """The queue in which the worker waits for the indices of its next batch."""

    waiting = False
    asked = False

    def get(self, timeout: float | None = None) -> Any:
        if not self.asked:
            keep_crashes()  # torch has set its own handlers by now
            if stops.are_blocked():  # `_start` had blocked them
                stops.ignore()
            self.asked = True
        if not self.waiting:
            self._writer.enter(WorkerStage.IDLE)
            self.waiting = True
        wanted = self._queue.get(timeout=timeout)
        self.waiting = False
        if isinstance(wanted, tuple):
            self._writer.enter(WorkerStage.FETCHING)
            if self._stamps is not None:
                self._stamps.started(wanted[0])
        return wanted


class _DataQueue(_Queue):
    """The queue through which the worker sends its batches."""

    def put(self, made: Any) -> None:
        if self._stamps is not None and not isinstance(made[1], _NO_BATCH):
            self._stamps.made(made[0])
        self._queue.put(made)
        self._writer.enter(WorkerStage.IDLE, batches=1)


def _start(process: BaseProcess) -> None:
    # before the start: the new process may get the pid of one that has ended
    for popen in _started:
        if popen.returncode == 0:
            _forget(popen.pid)
    _started[:] = [popen for popen in _started if popen.returncode != 0]
    outlives = _outlive_stops and getattr(process, "_target", None) is watched_worker_loop
    with stops.blocked() if outlives else nullcontext():
        _torch_start(process)
    popen = process._popen  # type: ignore[attr-defined]
    _started.append(popen)
    if outlives:
        # torch ends remaining workers by SIGTERM, which these workers ignore
        popen.terminate = partial(_end_worker, popen)


def _end_worker(popen: Any) -> None:
    _ended_here.add(popen.pid)
    popen.kill()


def _forget(pid: int) -> None:
    """Remove the files of a worker that ended normally.

    The parent does this, because a worker may hang after its loop, and then the files must still
    say what it was.
    """
    folder = child_folder()
    if folder is not None:
        worker_path(folder, pid).unlink(missing_ok=True)
        stacks_path(folder, pid).unlink(missing_ok=True)
        ring_path(folder, pid).unlink(missing_ok=True)


def dead_workers(error: BaseException) -> list[WorkerExit]:
    """The workers that have died, for an error that one of their deaths may have caused.

    The error can come before the death is visible, so this waits for it, some seconds at most.
    Before the call, remove torch's handler of SIGCHLD, which raises.
    """
    from ctrkit.core.child_records import WorkerExit

    before = ended = _ended()
    may_follow_s = next((s for kind, s in _DYING_S.items() if isinstance(error, kind)), 0.0)
    deadline_s = time.monotonic() + may_follow_s
    while not any(ended.values()) and len(ended) == len(before) < len(_started):
        if time.monotonic() > deadline_s:
            break
        time.sleep(0.02)
        ended = _ended()
    folder = child_folder()
    numbers = {one.pid: one.worker for one in read_workers(folder)} if folder else {}
    return [
        WorkerExit(pid=pid, worker=numbers.get(pid), exit_code=code) for pid, code in ended.items()
    ]


def _ended() -> dict[int, int]:
    codes: dict[int, int] = {}
    for popen in _started:
        with suppress(OSError, EOFError):
            if (code := popen.poll()) is not None:
                is_ours = code == -signal.SIGKILL and popen.pid in _ended_here
                codes[popen.pid] = -signal.SIGTERM if is_ours else code
    return codes
