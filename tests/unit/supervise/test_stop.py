from __future__ import annotations

import os
import signal

from ctrkit.supervise.stop import StopRequest, handle_interrupts


def test_a_probe_ends_at_the_first_request() -> None:
    stop = StopRequest()
    assert not stop.finish
    stop.request()
    assert stop.end_now


def test_a_run_finishes_at_the_first_and_ends_at_the_second() -> None:
    stop = StopRequest(graceful=True)
    stop.request()
    assert stop.finish
    assert not stop.end_now
    stop.request()
    assert stop.end_now


def test_signals_make_requests_and_the_handlers_come_back() -> None:
    before = (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
    with handle_interrupts(graceful=True) as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.finish
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.end_now
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
