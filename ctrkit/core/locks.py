"""A lock that one process at a time can hold; the kernel releases it when that process dies.

It is a POSIX record lock, so neither a forked worker that inherits the file nor a leftover lock
file can hold it. It excludes other processes, not other threads of this process.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from ctrkit.core.errors import UsageError

LOCK = ".lock"

_LOOK_S = 0.05
_TAKEN = (errno.EACCES, errno.EAGAIN)
_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


class LockTakenError(Exception):
    """Another process holds the lock; `holder` is its process id, or `unknown`."""

    def __init__(self, holder: str) -> None:
        super().__init__(holder)
        self.holder = holder


@contextmanager
def locked(path: Path, *, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the lock within this context. A file system without locks gives none.

    Args:
        path: the lock file, made if missing; it holds the holder's process id.
        wait_s: how long to wait for another process.

    Raises:
        LockTakenError: another process held it longer.
        OSError: the file cannot be written.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        if not _take(handle, wait_s):
            holder = os.pread(handle, 20, 0).decode(errors="replace").strip()
            raise LockTakenError(holder or "unknown")
        with suppress(OSError):  # the process id is only for others' messages
            os.ftruncate(handle, 0)
            os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(handle)


@contextmanager
def only_writer(folder: Path, *, wait_s: float = 0.0, who: str = "ctrkit train") -> Iterator[None]:
    """Be the only writer of this folder within this context.

    Args:
        folder: an existing folder; the lock is its file `.lock`.
        wait_s: how long to wait for another process to end.
        who: what the other process is, for the message.

    Raises:
        UsageError: another process holds the lock, or the folder cannot be written.
    """
    with ExitStack() as held:
        try:
            held.enter_context(locked(folder / LOCK, wait_s=wait_s))
        except LockTakenError as taken:
            raise UsageError(
                f"{folder}: another {who} (pid {taken.holder}) is writing into it; "
                "wait until it has ended, or stop it"
            ) from None
        except OSError as error:
            raise UsageError(
                f"{folder}: cannot be written: {error.strerror}; nothing in it was changed"
            ) from None
        yield


def _take(handle: int, wait_s: float) -> bool:
    deadline_s = time.monotonic() + wait_s
    while True:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _TAKEN:
                if error.errno in _WITHOUT_LOCKS:
                    return True
                raise
            if time.monotonic() >= deadline_s:
                return False
            time.sleep(_LOOK_S)
        else:
            return True
