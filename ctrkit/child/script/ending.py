"""How a trial of a script ends: its results are on disk, then the process is gone at once.

No `finally`, no exit handler and no upload of the script runs; what it started is ended by the
supervisor.
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
#: As it is before anything watches it.
_leave_at_once = os._exit


class ScriptFailedError(Exception):
    """What the script's own code raised while the observer called it: the script is to see it."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


def leave(code: int = 0) -> NoReturn:
    """End this process now; what it printed is still written."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    _leave_at_once(code)


def tell_before_sudden_end(tell: Callable[[int], None]) -> None:
    """`os._exit` runs no exit handlers; from now on this process tells its status before it.

    So end processes that `os.fork`, or multiprocessing by fork, has made. What they fork in turn
    tells nothing.
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
    """A trial whose loader cannot take the cell: said, and ended before anything is started."""
    owner = claim_owner(observer.folder, observer.presence.launch)
    path = os.path.join(owner.folder, "measurement.json")
    error = error_of("refused", Stage.FIRST_BATCH, reason)
    json_files.write_json(path, {"kind": observer.kind, "error": error})
    leave(1)


class CommonEnd:
    """Ranks that train together stop at the same step, which rank 0 names a little ahead.

    They exchange gradients in every step: none can be more than one step ahead of another. So all
    see the number before they reach it, and none leaves the others in the middle of an exchange.
    """

    AHEAD = 2

    def __init__(self, folder: str, launch: str, rank: int, world: int) -> None:
        self._path = os.path.join(folder, f"{_END}-{launch}")
        self._rank, self._world = rank, world
        self._number: int | None = None

    def wish(self, step: int) -> None:
        """Rank 0 has had enough after so many steps."""
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
        """Whether this process stops after so many steps."""
        if self._number is None and self._rank != 0:
            with suppress(OSError, ValueError), open(self._path) as file:
                self._number = int(file.read())
        return self._number is not None and step >= self._number
