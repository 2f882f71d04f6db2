"""Writes a process's stacks when it gets a signal that the user's code does not handle.

The signal must be one that works while the GIL is held in C, so a handler in C is needed
(faulthandler's), and which processes the supervisor may ask must be certain: whoever does not
catch the signal dies of it, and whoever catches it by the user's own handler runs that.

- SIGUSR1 and SIGUSR2 are the user's: Slurm, Lightning and others save and requeue on them. Taken is
  a real-time signal that nobody handled when the process began (macOS has none: SIGINFO, which is
  ignored by who does not handle it).
- Should the user's code set a handler for that one, too (all of `signal.valid_signals()`, say), the
  process steps aside before the handler is in place: it takes the next free signal, or none.
- Its file says which one it listens to. The supervisor reads that just before it asks, and asks the
  kernel (`/proc/PID/status`) whether the signal is caught and not blocked: after an `exec` it is
  not caught, and a blocked one could reach a `sigwait` of the user's. Who stands in one is not
  asked at all.

Not seen is a handler that a library in C sets by itself after the process began.

Standard library only, and Python 3.9: it also runs inside a script's own interpreter.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import faulthandler
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_MARK = "# asks for stacks: signal "
_MARKED = re.compile(rf"^{_MARK}(\d+)$", re.MULTILINE)
_NONE = 0


class _Armed:
    """Where this process writes its stacks, and on which signal (0: on none)."""

    def __init__(self, pid: int, folder: str, fd: int, number: int) -> None:
        self.pid, self.folder, self.fd, self.signal = pid, folder, fd, number


# of this process; a forked one finds its parent's
_armed: _Armed | None = None
_set_handler: Callable[..., Any] = _signal.signal


def stacks_path(folder: str | os.PathLike[str], pid: int) -> Path:
    """Where the process `pid` writes its stacks; that the file exists says that it is armed."""
    return Path(folder) / f"stacks-{pid}.txt"


def listened_signal(folder: str | os.PathLike[str], pid: int) -> int | None:
    """The signal that asks the process for its stacks; None if none does."""
    try:
        marks = _MARKED.findall(stacks_path(folder, pid).read_text("utf-8", errors="replace"))
    except OSError:
        return None
    return int(marks[-1]) or None if marks else None


def arm_stacks(folder: str | os.PathLike[str]) -> None:
    """From now on a signal writes the stacks of all threads to `stacks_path`.

    A forked process arms itself anew, with a file of its own, before any other code of it runs.
    Armed already, nothing happens.

    Raises:
        OSError: the file cannot be made.
    """
    if _armed is not None and _armed.pid == os.getpid():
        return
    if _armed is None:
        os.register_at_fork(after_in_child=_arm_forked)
        _signal.signal = _set_users_handler
    number = next(_free_signals(), _NONE) if _armed is None else _armed.signal
    _arm(str(folder), number)


def _arm(folder: str, number: int) -> None:
    global _armed
    # A plain descriptor: nothing of a file object that was copied while in use. It stays open.
    path = stacks_path(folder, os.getpid())
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o666)
    _armed = _Armed(os.getpid(), folder, fd, number)
    _listen(_armed, number)


def _arm_forked() -> None:
    assert _armed is not None
    number = _armed.signal
    try:
        _arm(_armed.folder, number)
    except OSError:  # its folder is gone: then nobody watches it any more
        if number:
            faulthandler.unregister(number)
            _set_handler(number, signal.SIG_IGN)


def _listen(armed: _Armed, number: int) -> None:
    if number:
        faulthandler.register(number, file=armed.fd, all_threads=True, chain=False)
    armed.signal = number
    os.write(armed.fd, f"{_MARK}{number}\n".encode())


def _free_signals() -> Iterator[int]:
    """Signals that nobody handles, ignores or waits for, the one to be taken first."""
    first, last = getattr(signal, "SIGRTMIN", 0), getattr(signal, "SIGRTMAX", 0)
    # the last ones are used by tools such as valgrind, the first ones by some C libraries
    wanted = [*range(last - 3, first, -1)] if last else [getattr(signal, "SIGINFO", _NONE)]
    wanted.append(getattr(signal, "SIGSTKFLT", _NONE))  # which Linux has, and nothing sends
    taken = _handled_in_c()
    for number in wanted:
        if number and not taken >> (number - 1) & 1 and _signal.getsignal(number) == 0:
            yield int(number)


def _handled_in_c() -> int:
    """The signals that this process catches, ignores or blocks, as the kernel knows it: a mask."""
    taken = 0
    try:
        for line in Path("/proc/self/status").read_text("utf-8", "replace").splitlines():
            if line[:6] in ("SigCgt", "SigIgn", "SigBlk"):
                taken |= int(line[8:], 16)
    except (OSError, ValueError):
        return 0
    return taken


def _set_users_handler(number: Any, handler: Any, /) -> Any:
    """In place of the C function that `signal.signal` calls: first make room for the handler."""
    armed = _armed
    if armed is not None and armed.signal and armed.pid == os.getpid() and number == armed.signal:
        faulthandler.unregister(armed.signal)
        before = armed.signal
        armed.signal = _NONE
        # lower ones only: those above were taken before
        _listen(armed, next((one for one in _free_signals() if one < before), _NONE))
    return _set_handler(number, handler)


def keep_crashes() -> None:
    """From now on a crash in C leaves its stack in `stacks_path`, too.

    Needed where somebody has replaced faulthandler's handlers, as torch does in its workers.
    Processes that crash together would write between each other's lines of a file they share.
    """
    if _armed is not None and _armed.pid == os.getpid():
        faulthandler.disable()
        faulthandler.enable(file=_armed.fd)
