"""The child's side of a stop: it notes SIGINT, SIGTERM and SIGHUP from its first moment.

A scheduler or a service manager sends them to every process of a run at once, so that the child
must not die of them before it has saved. Where there is nothing to save yet, or where the loop
only waits, a stop raises `Stopped`; elsewhere it is noted, and the loop looks at it after its step.

Standard library only: this is imported before anything that could hang.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum

#: In the environment of a process that shall note them; it takes the variable away again.
VARIABLE = "CTRKIT_NOTES_STOPS"
#: What asks a run to stop.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: Exit code of a child that stopped with nothing to save, as of a shell's Ctrl-C.
EXIT_CODE = 130
#: A signal that comes so long after the first one says that the wait is taking too long.
LATE_S = 2.0


class Stopped(BaseException):
    """Asked to stop at a place where nothing is lost by it. No error: handlers let it through."""


class Raises(Enum):
    """When a signal raises `Stopped`, and is not only noted."""

    NEVER = "never"
    LATE = "from the second one on, LATE_S after the first"
    AT_ONCE = "at once"


_noted_s: float | None = None
_raises = Raises.NEVER
_notes = False
_tell: Callable[[], None] | None = None


def note_stops(*, always: bool = False) -> None:
    """From now on the signals are noted, where the supervisor asked for it, or `always`.

    One that was blocked until now, so that it could not kill the process while it began, is noted
    at once. A SIGHUP that was ignored at the start (nohup) stays ignored.
    """
    global _notes
    wanted = os.environ.pop(VARIABLE, None) is not None or always
    if not wanted or _notes or threading.current_thread() is not threading.main_thread():
        return
    for number in SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _note)
    os.register_at_fork(after_in_child=_forget)
    _notes = True
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def catch_again(number: signal.Signals) -> None:
    """Note this signal again, whatever the workload's own code has done with it since."""
    if _notes:
        signal.signal(number, _note)


def noted() -> bool:
    """Whether a stop was asked for."""
    return _noted_s is not None


def comes_within(seconds: float) -> bool:
    """Whether a stop was asked for, or is within so many seconds.

    For an error that a signal to all processes of the run may have caused in another one first.
    """
    deadline_s = time.monotonic() + (seconds if _notes else 0.0)
    while not noted() and time.monotonic() < deadline_s:
        time.sleep(0.02)
    return noted()


def tell(told: Callable[[], None]) -> None:
    """From now on call this at each signal, instead of raising."""
    global _tell
    _tell = told
    if noted():
        told()


def let(raises: Raises) -> None:
    """Raise from now on where it says so.

    Raises:
        Stopped: a stop was noted before, and `raises` is `AT_ONCE`.
    """
    global _raises
    _raises = raises
    if raises is Raises.AT_ONCE and noted():
        raise Stopped


@contextmanager
def raising(raises: Raises) -> Iterator[None]:
    """Inside, as `let` says; afterwards as before."""
    global _raises
    before = _raises
    try:
        let(raises)
        yield
    finally:
        _raises = before


@contextmanager
def blocked() -> Iterator[None]:
    """Inside, the signals wait, also in the processes that are started: these must unblock them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def are_blocked() -> bool:
    """Whether the signals wait in this thread, as in a process that was started while `blocked`."""
    return signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def end() -> None:
    """The process has nothing left to do: a signal that comes now must not change how it ends.

    Python puts the signals back to what they do by default before it is gone.
    """
    if _notes:
        ignore()


def ignore() -> None:
    """For a process that somebody else of the run ends when it is time: it ignores the signals."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _note(number: int, frame: object) -> None:
    global _noted_s
    now_s = time.monotonic()
    if _noted_s is None:
        _noted_s = now_s
    if _tell is not None:
        _tell()
    elif _raises is Raises.AT_ONCE or (_raises is Raises.LATE and now_s - _noted_s >= LATE_S):
        raise Stopped


def _forget() -> None:
    """A forked process is a worker, or the user's own: the signals do there what they always do."""
    global _notes
    _notes = False
    for number in SIGNALS:
        if signal.getsignal(number) is _note:
            default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, default)
