"""Signals for a script: all of them, each once, in order."""

from __future__ import annotations

import os
import signal

from ctrkit.supervise.script_signals import PassedOn, pass_signals_on


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_what_a_scheduler_tells_is_passed_on_and_asks_for_nothing() -> None:
    stop = PassedOn(Clock())
    stop.receive(signal.SIGUSR1)
    stop.receive(signal.SIGUSR2)
    assert stop.take() == [signal.SIGUSR1, signal.SIGUSR2]
    assert stop.take() == []
    assert not stop.finish


def test_one_that_is_sent_twice_at_once_counts_once() -> None:
    clock = Clock()
    stop = PassedOn(clock)
    stop.receive(signal.SIGTERM)
    stop.receive(signal.SIGTERM)  # `timeout` sends it to the process and to its group
    assert stop.take() == [signal.SIGTERM]
    assert stop.requests == 1
    assert (stop.first, stop.by) == (signal.SIGTERM, "SIGTERM")


def test_a_script_may_use_two_wishes_for_itself() -> None:
    clock = Clock()
    stop = PassedOn(clock)
    for wishes in (1, 2, 3):
        clock.now_s += 1
        stop.receive(signal.SIGINT)
        assert stop.take() == [signal.SIGINT]
        assert stop.end_now == (wishes == 3)


def test_our_own_wish_comes_as_a_scheduler_asks() -> None:
    stop = PassedOn(Clock())
    stop.request()
    assert stop.take() == [signal.SIGTERM]


def test_handlers_are_ours_only_inside_and_what_was_ignored_stays_so() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGUSR1, signal.SIGHUP)}
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with pass_signals_on() as stop:
            os.kill(os.getpid(), signal.SIGUSR1)
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.take() == [signal.SIGUSR1]
        assert signal.getsignal(signal.SIGUSR1) == before[signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGHUP, before[signal.SIGHUP])
