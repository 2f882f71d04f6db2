"""Turns Ctrl-C, SIGTERM and SIGHUP into a stop request, and says how long the stop may take."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ctrkit.core.progress import Stage

#: Seconds that a run may take to finish its step and save after SIGTERM or SIGHUP: less than the 30
#: s after which most schedulers kill.
GRACE_S = 25.0
#: Two signals within this time are one request: `timeout`, for example, sends each twice.
_ONE_REQUEST_S = 0.5
_STARTUP_S = 3.0
_STARTUP = (Stage.IMPORT, Stage.DATA, Stage.MODEL)
#: Stages that end by themselves, cannot save midway, and whose loss would cost an epoch.
_NEVER_CUT = (Stage.METRICS, Stage.CHECKPOINT)


class StopRequest:
    """How urgently the user wants to end: 0 go on, 1 finish the step and save, 2 end now.

    If nothing can finish gracefully, the first request already means: end now. For a graceful run,
    only a second Ctrl-C means that. SIGTERM and SIGHUP come from machinery, which may send both, or
    one of them twice; the run must finish within the grace period.

    Args:
        graceful: whether the first request lets a run finish its step and save.
        clock: returns seconds, monotonic.
    """

    def __init__(
        self, *, graceful: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.graceful, self._clock = graceful, clock
        self.requests = 0
        #: the first request: the name of a signal, empty for the program's own
        self.by = ""
        #: when the grace period began; None while there is none
        self.grace_since_s: float | None = None
        self._newest_s = 0.0

    def request(self, number: int | None = None) -> None:
        """Make a request, by this signal. Safe in a signal handler."""
        now_s, name = self._clock(), "" if number is None else signal.Signals(number).name
        is_machinery = name in ("SIGTERM", "SIGHUP")
        if is_machinery and self.grace_since_s is None:
            self.grace_since_s = now_s
        if not self.requests:
            self.by = name
        elif name and (is_machinery or now_s - self._newest_s < _ONE_REQUEST_S):
            return
        self._newest_s = now_s
        self.requests += 1

    def take(self) -> list[int]:
        """Signals to pass on to the child as they came; only a script gets any."""
        return []

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
    """SIGINT, SIGTERM and SIGHUP make requests within this context; then the old handlers return.

    A SIGHUP that was ignored at the start (`nohup`) stays ignored. Enter it in the main thread.

    Args:
        graceful: whether the first request lets a run finish its step and save.
    """
    stop = StopRequest(graceful=graceful)
    before = {
        number: signal.signal(number, lambda number, _: stop.request(number))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def is_out_of_patience(
    stage: Stage, asked_s: float, now_s: float, *, grace_since_s: float | None, grace_s: float
) -> bool:
    """Whether to end a real run by force that was asked to stop.

    Before its first step there is nothing to save. Later only a grace period counts: a user who
    pressed Ctrl-C can press it again. A checkpoint being written, or metrics being computed, only
    have the limits of their stages.

    Args:
        stage: the run's stage.
        asked_s: when it was asked to stop.
        now_s: the time on the same clock.
        grace_since_s: when the grace period began; None without one.
        grace_s: its length.
    """
    if stage in _STARTUP:
        return now_s - asked_s >= _STARTUP_S
    if stage in _NEVER_CUT or grace_since_s is None:
        return False
    return now_s - grace_since_s >= grace_s
