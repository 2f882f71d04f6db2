from __future__ import annotations

import os
import signal

import pytest

from ctrkit.core.progress import Stage
from ctrkit.supervise.stop import StopRequest, handle_interrupts, is_out_of_patience

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


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
    before = [signal.getsignal(number) for number in NUMBERS]
    with handle_interrupts(graceful=True) as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert (stop.finish, stop.by) == (True, "SIGHUP")
        assert stop.grace_since_s is not None
    assert [signal.getsignal(number) for number in NUMBERS] == before


def test_a_hangup_that_was_ignored_at_the_start_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with handle_interrupts(graceful=True) as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.finish
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("numbers", "apart_s", "ends"),
    [
        ((signal.SIGINT, signal.SIGINT), 2.0, True),
        ((signal.SIGINT, signal.SIGINT), 0.01, False),  # one Ctrl-C, told twice
        ((signal.SIGTERM, signal.SIGTERM), 2.0, False),  # as `timeout` and batch systems do
        ((signal.SIGTERM, signal.SIGHUP), 2.0, False),  # as systemd does with SendSIGHUP
        ((signal.SIGTERM, signal.SIGINT), 2.0, True),
        ((signal.SIGHUP, signal.SIGTERM), 2.0, False),
    ],
)
def test_only_ctrl_c_again_ends_a_run_at_once(
    numbers: tuple[int, ...], apart_s: float, ends: bool
) -> None:
    clock = Clock()
    stop = StopRequest(graceful=True, clock=clock)
    for number in numbers:
        stop.request(number)
        clock.now_s += apart_s
    assert stop.finish
    assert stop.end_now == ends


def test_a_grace_runs_from_the_first_signal_of_a_machine() -> None:
    clock = Clock()
    stop = StopRequest(graceful=True, clock=clock)
    stop.request(signal.SIGINT)
    assert stop.grace_since_s is None
    clock.now_s = 40.0
    stop.request(signal.SIGTERM)
    assert (stop.grace_since_s, stop.end_now) == (40.0, False)


@pytest.mark.parametrize(
    ("stage", "grace_since_s", "over_at_s"),
    [
        (Stage.IMPORT, None, 3.0),
        (Stage.MODEL, 0.0, 3.0),
        (Stage.STEP, 0.0, 25.0),
        (Stage.FIRST_BATCH, 0.0, 25.0),
        (Stage.VALIDATION, 0.0, 25.0),
        (Stage.SHUTDOWN, 0.0, 25.0),
        (Stage.STEP, None, None),  # who pressed Ctrl-C can press it again
        (Stage.METRICS, 0.0, None),
        (Stage.CHECKPOINT, 0.0, None),
    ],
)
def test_how_long_a_run_may_take_to_stop(
    stage: Stage, grace_since_s: float | None, over_at_s: float | None
) -> None:
    over = [
        now_s
        for now_s in (0.0, 2.9, 3.0, 24.9, 25.0, 1000.0)
        if is_out_of_patience(stage, 0.0, now_s, grace_since_s=grace_since_s, grace_s=25.0)
    ]
    assert (over[0] if over else None) == over_at_s
