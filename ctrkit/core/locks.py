"""A lock that one process at a time holds; the kernel gives it back when that process dies."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ctrkit.core.errors import UsageError

LOCK = ".lock"

_LOOK_S = 0.05
_TAKEN = (errno.EACCES, errno.EAGAIN)
_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)


@contextmanager
def only_writer(folder: Path, *, wait_s: float = 0.0, who: str = "ctrkit train") -> Iterator[None]:
    """Inside, no other process is the writer of this folder.

    A record lock: neither a forked worker nor a file left behind can hold it. On a file system that
    has no locks there is none.

    Args:
        folder: exists; the lock is its file `.lock`.
        wait_s: how long another one may take to end.
        who: what the other one is, for the message.

    Raises:
        UsageError: another process holds it, or the folder cannot be written.
    """
    try:
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise UsageError(
            f"{folder}: cannot be written: {error.strerror}; nothing in it was changed"
        ) from None
    try:
        if not _take(handle, wait_s):
            holder = os.pread(handle, 20, 0).decode(errors="replace").strip() or "unknown"
            raise UsageError(
                f"{folder}: another {who} (pid {holder}) is writing into it; "
                "wait until it has ended, or stop it"
            )
        with suppress(OSError):  # only for the other one's message
            os.ftruncate(handle, 0)
            os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(handle)


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
