"""Writes a process's stacks when it gets a signal that the user's code does not handle.

The signal must work while C code holds the GIL, so it needs a handler in C (faulthandler's). And
the supervisor must know for certain which processes it may signal: a process that does not catch
the signal dies, and one with a handler of the user's would run that handler.

- SIGUSR1 and SIGUSR2 belong to the user: Slurm, Lightning and others save and requeue on them.
  ctrkit takes a real-time signal that nothing handled when the process began. macOS has no
  real-time signals; there it takes SIGINFO, which a process ignores by default.
- If the user's code sets a handler for that signal as well (for all of `signal.valid_signals()`,
  say), the process first moves to the next free signal, or to none.
- The process's file says which signal it listens to. The supervisor reads that just before it asks,
  and checks in the kernel (`/proc/PID/status`) that the signal is caught and not blocked. After an
  `exec` it is not caught, and a blocked signal could reach a `sigwait` of the user's. A process
  that is in a `sigwait` is never asked.

It does not notice a handler that a C library sets by itself after the process began.

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


# of this process; a forked process inherits its parent's value
_armed: _Armed | None = None
_set_handler: Callable[..., Any] = _signal.signal


def stacks_path(folder: str | os.PathLike[str], pid: int) -> Path:
    """The file for the stacks of the process `pid`; it exists if that process is armed."""
    return Path(folder) / f"stacks-{pid}.txt"


def listened_signal(folder: str | os.PathLike[str], pid: int) -> int | None:
    """The signal that asks the process for its stacks; None if none does."""
    try:
        marks = _MARKED.findall(stacks_path(folder, pid).read_text("utf-8", errors="replace"))
    except OSError:
        return None
    return int(marks[-1]) or None if marks else None


def arm_stacks(folder: str | os.PathLike[str]) -> None:
    """From now on, a signal writes the stacks of all threads to `stacks_path`.

    A forked process arms itself with its own file before any other code of it runs. Does nothing if
    this process is armed already.

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
    # A plain descriptor that stays open: a file object could be copied by a fork while in use.
    path = stacks_path(folder, os.getpid())
    fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o666)
    _armed = _Armed(os.getpid(), folder, fd, number)
    _listen(_armed, number)


def _arm_forked() -> None:
    assert _armed is not None
    number = _armed.signal
    try:
        _arm(_armed.folder, number)
    except OSError:  # its folder is gone, so nobody watches it any more
        if number:
            faulthandler.unregister(number)
            _set_handler(number, signal.SIG_IGN)


def _listen(armed: _Armed, number: int) -> None:
    if number:
        faulthandler.register(number, file=armed.fd, all_threads=True, chain=False)
    armed.signal = number
    os.write(armed.fd, f"{_MARK}{number}\n".encode())


def _free_signals() -> Iterator[int]:
    """Signals that nothing handles, ignores or waits for, in order of preference."""
    first, last = getattr(signal, "SIGRTMIN", 0), getattr(signal, "SIGRTMAX", 0)
    # tools such as valgrind use the last ones, some C libraries the first ones
    wanted = [*range(last - 3, first, -1)] if last else [getattr(signal, "SIGINFO", _NONE)]
    wanted.append(getattr(signal, "SIGSTKFLT", _NONE))  # Linux has it, and nothing sends it
    taken = _handled_in_c()
    for number in wanted:
        if number and not taken >> (number - 1) & 1 and _signal.getsignal(number) == 0:
            yield int(number)


def _handled_in_c() -> int:
    """A mask of the signals that this process catches, ignores or blocks, from the kernel."""
    taken = 0
    try:
        for line in Path("/proc/self/status").read_text("utf-8", "replace").splitlines():
            if line[:6] in ("SigCgt", "SigIgn", "SigBlk"):
                taken |= int(line[8:], 16)
    except (OSError, ValueError):
        return 0
    return taken


def _set_users_handler(number: Any, handler: Any, /) -> Any:
    """Replaces the C function behind `signal.signal`: makes room for the user's handler first."""
    armed = _armed
    if armed is not None and armed.signal and armed.pid == os.getpid() and number == armed.signal:
        faulthandler.unregister(armed.signal)
        before = armed.signal
        armed.signal = _NONE
        # only lower ones: those above were taken before
        _listen(armed, next((one for one in _free_signals() if one < before), _NONE))
    return _set_handler(number, handler)


def keep_crashes() -> None:
    """From now on, a crash in C also writes its stack to `stacks_path`.

    Needed where something has replaced faulthandler's handlers, as torch does in its workers. If
    processes shared one file, their lines would mix when they crash together.
    """
    if _armed is not None and _armed.pid == os.getpid():
        faulthandler.disable()
        faulthandler.enable(file=_armed.fd)
