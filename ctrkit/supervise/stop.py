"""Ctrl-C and SIGTERM as a request that the supervisor reads, instead of an exception anywhere."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class StopRequest:
    """How urgently the user wants the end: 0 go on, 1 finish the step and save, 2 end now.

    Where nothing can be finished gracefully, the first request already means: end now.
    """

    def __init__(self, *, graceful: bool = False) -> None:
        self.graceful = graceful
        self.requests = 0

    def request(self) -> None:
        """One more request. Safe in a signal handler."""
        self.requests += 1

    @property
    def finish(self) -> bool:
        """Whether to finish and save."""
        return self.requests > 0

    @property
    def end_now(self) -> bool:
        """Whether to end at once."""
        return self.requests > (1 if self.graceful else 0)


@contextmanager
def handle_interrupts(graceful: bool) -> Iterator[StopRequest]:
    """Inside, SIGINT and SIGTERM make requests; afterwards the old handlers are back.

    `graceful`: the first one lets a run finish its step and save, the second one ends it. Must be
    entered in the main thread.
    """
    stop = StopRequest(graceful=graceful)
    before = {
        number: signal.signal(number, lambda *_: stop.request())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
