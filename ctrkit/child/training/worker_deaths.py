"""Keeps what torch raises for a dead DataLoader worker out of code that would misread it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def deaths_told_afterwards() -> Iterator[None]:
    """Torch's handler of SIGCHLD raises after this context, if a worker has died within it.

    Otherwise it raises a RuntimeError between any two instructions of the main thread. Code that
    catches such an error takes it for its own: a state that cannot be loaded, metrics that fail.
    """
    handler = signal.getsignal(signal.SIGCHLD)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield
        return
    came = False

    def note(*_: object) -> None:
        nonlocal came
        came = True

    signal.signal(signal.SIGCHLD, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, handler)
    if came:
        handler(signal.SIGCHLD, None)
