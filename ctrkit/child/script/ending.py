"""Ends a trial of a script: when its results are on disk, the process is gone at once.

No `finally`, exit handler or upload of the script runs. The supervisor ends the processes that the
script started.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

from ctrkit.child.script import json_files
from ctrkit.child.script.presence import claim_owner
from ctrkit.child.script.unseen import unseen
from ctrkit.core.progress import Stage

if TYPE_CHECKING:
    from ctrkit.child.script.observer import Observer

_END = "end-at"
#: the original function, before anything wraps it
_leave_at_once = os._exit


class ScriptFailedError(Exception):
    """An error of the script's own code, called by the observer, that the script must get."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


def leave(code: int = 0) -> NoReturn:
    """End this process now; its output is flushed."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    _leave_at_once(code)


def tell_before_sudden_end(tell: Callable[[int], None]) -> None:
    """From now on, call `tell` with the status before `os._exit`, which runs no exit handlers.

    Processes made by `os.fork`, or by multiprocessing with fork, end in this way. Processes that
    they fork in turn tell nothing.
    """
    pid = os.getpid()

    @unseen
    @functools.wraps(_leave_at_once)
    def _exit(status: int) -> Any:
        if os.getpid() == pid:
            tell(status)
        _leave_at_once(status)

    os._exit = _exit


def error_of(verdict: str, stage: Stage, message: str) -> dict[str, Any]:
    """A `child_records.ChildError` as plain values."""
    return {"verdict": verdict, "stage": stage.label, "message": message, "traceback": message}


def end_refused(observer: Observer, reason: str) -> None:
    """End a trial whose loader cannot take the cell, with the reason, before anything starts."""
    owner = claim_owner(observer.folder, observer.presence.launch)
    path = os.path.join(owner.folder, "measurement.json")
    error = error_of("refused", Stage.FIRST_BATCH, reason)
    json_files.write_json(path, {"kind": observer.kind, "error": error})
    leave(1)


class CommonEnd:
    """Makes ranks that train together stop at the same step, which rank 0 names a little ahead.

    They exchange gradients in every step, so none can be more than one step ahead of another. So
    all see the number before they reach it, and none leaves the others in the middle of an
    exchange.
    """

    AHEAD = 2

    def __init__(self, folder: str, launch: str, rank: int, world: int) -> None:
        self._path = os.path.join(folder, f"{_END}-{launch}")
        self._rank, self._world = rank, world
        self._number: int | None = None

    def wish(self, step: int) -> None:
        """Rank 0 has enough after so many steps."""
        if self._number is not None:
            return
        if self._world == 1:
            self._number = step
        elif self._rank == 0:
            self._number = step + self.AHEAD
            aside = f"{self._path}.new"
            with open(aside, "w") as file:
                file.write(str(self._number))
            os.replace(aside, self._path)

    def is_reached(self, step: int) -> bool:
        """Whether this process must stop after so many steps."""
        if self._number is None and self._rank != 0:
            with suppress(OSError, ValueError), open(self._path) as file:
                self._number = int(file.read())
        return self._number is not None and step >= self._number
