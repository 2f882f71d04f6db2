"""Passes signals on to a script that trains for real."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from ctrkit.supervise.stop import StopRequest

#: Signals that ask a script to end; the meaning of others is up to the script.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
#: Schedulers send these before a job ends; scripts then save, or requeue themselves.
TELLING = (signal.SIGUSR1, signal.SIGUSR2)
_ONE_SIGNAL_S = 0.5  # `timeout`, for example, sends each signal twice
_MOST_REQUESTS = 3  # at the third request to end, the script is ended at once


class PassedOn(StopRequest):
    """A stop request that only passes signals on: the script decides what to do."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(graceful=True, clock=clock)
        self._waiting: list[int] = []
        self._came_s: dict[int, float] = {}
        #: the first signal that asked for the end; 0 if none has
        self.first = 0

    def receive(self, number: int) -> None:
        """Receive a signal. Safe in a signal handler."""
        now_s = self._clock()
        is_second = now_s - self._came_s.get(number, -_ONE_SIGNAL_S) < _ONE_SIGNAL_S
        self._came_s[number] = now_s
        if is_second:
            return
        self._waiting.append(number)
        if number in ENDING:
            self.first = self.first or number
            self.by = self.by or signal.Signals(number).name
            self.requests += 1

    def request(self, number: int | None = None) -> None:
        """Ask the run to end without a signal from outside, as a scheduler would ask."""
        self.receive(number or signal.SIGTERM)

    def take(self) -> list[int]:
        """The signals to pass on now, in order."""
        taken, self._waiting = self._waiting, []
        return taken

    @property
    def end_now(self) -> bool:
        """Whether the user insists: a script may use one or two Ctrl-C for itself."""
        return self.requests >= _MOST_REQUESTS


@contextmanager
def pass_signals_on() -> Iterator[PassedOn]:
    """Receive signals for the script within this context; then restore the old handlers.

    A signal that was ignored before (`nohup`) stays ignored. Enter it in the main thread.
    """
    stop = PassedOn()

    def receive(number: int, _: FrameType | None) -> None:
        stop.receive(number)

    before = {}
    for number in (*ENDING, *TELLING):
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, receive)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
