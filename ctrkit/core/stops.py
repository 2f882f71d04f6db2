"""The child's side of a stop: it notes SIGINT, SIGTERM and SIGHUP from its first moment.

A scheduler or a service manager sends these to every process of a run at once, and the child must
not die before it has saved its state. If there is nothing to save yet, or the loop only waits, a
stop raises `Stopped`. At other times the stop is noted, and the loop looks at it after its step.

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

#: Tells a new process to note stops; that process removes it from its environment.
VARIABLE = "CTRKIT_NOTES_STOPS"
#: Signals that ask a run to stop.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: Exit code of a child that stopped with nothing to save, as a shell reports Ctrl-C.
EXIT_CODE = 130
#: If another signal comes this long after the first one, the wait is taking too long.
LATE_S = 2.0


class Stopped(BaseException):
    """A stop was requested at a place where it loses nothing.

    It is no `Exception`, so that error handlers let it through.
    """


class Raises(Enum):
    """When a signal raises `Stopped` instead of only being noted."""

    NEVER = "never"
    LATE = "from the second one on, LATE_S after the first"
    AT_ONCE = "at once"


_noted_s: float | None = None
_raises = Raises.NEVER
_notes = False
_tell: Callable[[], None] | None = None


def note_stops(*, always: bool = False) -> None:
    """Note the signals from now on, if the supervisor asked for that, or if `always`.

    A signal that was blocked until now, so that it could not kill the process during its start, is
    noted at once. A SIGHUP that was ignored at the start (nohup) stays ignored.
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
    """Note this signal again, even if the workload's own code has set another handler."""
    if _notes:
        signal.signal(number, _note)


def noted() -> bool:
    """Whether a stop was requested."""
    return _noted_s is not None


def comes_within(seconds: float) -> bool:
    """Whether a stop was requested already, or comes within so many seconds.

    Use it for an error that the same signal may have caused in another process of the run first.
    """
    deadline_s = time.monotonic() + (seconds if _notes else 0.0)
    while not noted() and time.monotonic() < deadline_s:
        time.sleep(0.02)
    return noted()


def tell(told: Callable[[], None]) -> None:
    """From now on, call this function at each signal, instead of raising."""
    global _tell
    _tell = told
    if noted():
        told()


def let(raises: Raises) -> None:
    """Set when signals raise `Stopped`, from now on.

    Raises:
        Stopped: a stop was noted before, and `raises` is `AT_ONCE`.
    """
    global _raises
    _raises = raises
    if raises is Raises.AT_ONCE and noted():
        raise Stopped


@contextmanager
def raising(raises: Raises) -> Iterator[None]:
    """Like `let`, but only within this context."""
    global _raises
    before = _raises
    try:
        let(raises)
        yield
    finally:
        _raises = before


@contextmanager
def blocked() -> Iterator[None]:
    """Block the signals within this context; processes started in it must unblock them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def are_blocked() -> bool:
    """Whether the signals are blocked in this thread, as in a process started in `blocked`."""
    return signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def end() -> None:
    """Ignore the signals at the end, so that a late one does not change the exit code.

    Python restores the default actions of signals just before the process ends.
    """
    if _notes:
        ignore()


def ignore() -> None:
    """Ignore the signals in a process that another process of the run will end."""
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
    """Restore default signal handling in a forked process: a worker, or the user's own."""
    global _notes
    _notes = False
    for number in SIGNALS:
        if signal.getsignal(number) is _note:
            default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, default)
