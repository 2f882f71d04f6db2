"""Where seconds go, from fake samples of clocks and counters."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrkit.core.spending import Spending, Spent
from ctrkit.supervise.time_account import CATEGORIES, OWN, SessionLook, TimeAccount


def spent(
    doing: Spending, since_s: float, pid: int = 1, writes: int = 1, **seconds: float
) -> Spent:
    figures = tuple(seconds.get(name, 0.0) for name in OWN)
    return Spent(pid=pid, doing=doing, since_s=since_s, seconds=figures, writes=writes)


def look(awake_s: float, counted: Spent | None = None, **values: Any) -> SessionLook:
    return SessionLook(**({"awake_s": awake_s, "slept_s": 0.0, "spent": counted} | values))


def some(account: TimeAccount) -> dict[str, float]:
    """The categories that have any time."""
    return {name: pytest.approx(s) for name, s in account.seconds.items() if abs(s) > 1e-9}


def test_what_the_loop_counts_is_what_is_accounted_for() -> None:
    account = TimeAccount(look(100.0))
    account.look(look(103.0))
    assert some(account) == {"startup": 3.0}
    # the child began at 104
    account.look(look(110.0, spent(Spending.COMPUTE, 109.0, startup=1.0, data_wait=4.0)))
    assert some(account) == {"startup": 5.0, "data_wait": 4.0, "compute": 1.0}
    # in the midst of a long computation: nothing was written since, but cores were busy
    long = spent(Spending.COMPUTE, 109.0, startup=1.0, data_wait=4.0)
    account.look(look(120.0, long, loop_cpu_s=9.0, cpu_s=9.0))
    assert some(account) == {"startup": 5.0, "data_wait": 4.0, "compute": 11.0}
    end = spent(Spending.SHUTDOWN, 120.1, startup=1.0, data_wait=4.0, compute=11.1)
    account.ended(look(122.0, end), lost=False)
    assert some(account) == {"startup": 5.0, "data_wait": 4.0, "compute": 11.1, "shutdown": 1.9}


def test_a_host_that_slept_between_batches_is_not_a_slow_loader() -> None:
    account = TimeAccount(look(0.0))
    account.look(look(1.0, spent(Spending.DATA_WAIT, 0.0)))
    account.look(look(1.2, spent(Spending.DATA_WAIT, 0.0), slept_s=25_920.0))
    assert some(account) == {"asleep": 25_920.0, "data_wait": 1.2}


@pytest.mark.parametrize("doing", list(Spending))
def test_a_stopped_loop_is_stopped_whatever_it_was_doing(doing: Spending) -> None:
    account = TimeAccount(look(0.0))
    account.look(look(0.2, spent(doing, 0.0)))
    for tenth in range(4, 102, 2):  # stopped from 0.3 to 10.1
        account.look(look(tenth / 10, spent(doing, 0.0), loop_stopped=tenth <= 100))
    assert account.seconds["stopped"] == pytest.approx(9.7)  # half of what is not known
    own = account.seconds[doing.name.lower()]
    assert own == pytest.approx(10.0 - account.seconds["stopped"])


def test_a_stop_before_the_loop_counts_is_a_stop_too() -> None:
    account = TimeAccount(look(0.0, loop_stopped=True))
    account.look(look(5.0, loop_stopped=True))
    assert some(account) == {"stopped": 5.0}
    account.look(look(6.0))
    assert some(account) == {"stopped": 5.5, "startup": 0.5}


def test_the_end_of_a_stop_is_taken_from_what_was_stopped() -> None:
    account = TimeAccount(look(0.0, spent(Spending.DATA_WAIT, 0.0), loop_stopped=True))
    gone_on = spent(Spending.COMPUTE, 0.3, writes=2, data_wait=0.3)
    account.look(look(0.4, gone_on))
    assert some(account) == {"stopped": 0.2, "data_wait": 0.1, "compute": 0.1}


@pytest.mark.parametrize(
    ("doing", "writes", "expected"),
    [
        (Spending.DATA_WAIT, 1, "stopped"),
        (Spending.VALIDATION, 1, "stopped"),
        (Spending.COMPUTE, 1, "compute"),  # the loop does not wait for the one that is stopped
        (Spending.DATA_WAIT, 2, "data_wait"),  # others deliver
    ],
)
def test_a_stopped_worker_stops_a_loop_that_waits(
    doing: Spending, writes: int, expected: str
) -> None:
    account = TimeAccount(look(0.0, spent(doing, 0.0), other_stopped=True))
    account.look(look(2.0, spent(doing, 0.0, writes=writes), other_stopped=True))
    assert some(account) == {expected: 2.0}


@pytest.mark.parametrize(
    ("loop_s", "tree_s", "writes", "expected"),
    [
        (0.5, 2.5, 1, "stopped"),
        (700.0, 700.0, 1, "compute"),
        (0.5, 700.0, 1, "compute"),  # its workers were busy
        (0.5, 2.5, 2, "compute"),  # it went on
    ],
)
def test_a_family_that_was_frozen_with_its_supervisor_was_stopped(
    loop_s: float, tree_s: float, writes: int, expected: str
) -> None:
    account = TimeAccount(look(0.0, spent(Spending.COMPUTE, 0.0), loop_cpu_s=9.0, cpu_s=10.0))
    later = spent(Spending.COMPUTE, 0.0, writes=writes)
    account.look(look(720.0, later, loop_cpu_s=9.0 + loop_s, cpu_s=10.0 + tree_s))
    assert some(account) == {expected: 720.0}


@pytest.mark.parametrize(("until_s", "expected"), [(719.5, 719.5), (600.0, 0.0)])
def test_a_family_that_went_on_before_its_supervisor_looked_was_stopped_too(
    until_s: float, expected: float
) -> None:
    account = TimeAccount(look(0.0, spent(Spending.DATA_WAIT, 0.0)))
    gone_on = dataclasses.replace(
        spent(Spending.COMPUTE, until_s, writes=9, data_wait=until_s),
        long=(Spending.DATA_WAIT, 0.0, until_s),
    )
    account.look(look(720.0, gone_on))
    assert account.seconds["stopped"] == pytest.approx(expected)
    assert account.seconds["data_wait"] == pytest.approx(until_s - expected)
    assert account.seconds["compute"] == pytest.approx(720.0 - until_s)


def test_after_a_death_time_is_that_of_a_restart_until_a_step_is_new() -> None:
    account = TimeAccount(look(0.0))
    account.look(look(10.0, spent(Spending.COMPUTE, 9.0, data_wait=9.0), position=(1, 40)))
    # it died at 10.1, which was found out at 12
    dead = spent(Spending.COMPUTE, 10.1, data_wait=9.0, compute=1.1)
    account.ended(look(12.0, dead, position=(1, 40)), lost=True)
    assert some(account) == {"data_wait": 9.0, "compute": 1.1, "restart": 1.9}
    account.look(look(15.0))
    again = spent(Spending.COMPUTE, 16.0, pid=2, startup=1.0)
    account.look(look(20.0, again, position=(1, 25)))
    account.look(look(25.0, again, position=(1, 40)))
    account.look(look(26.0, again, position=(1, 41)))
    account.look(look(28.0, again, position=(1, 43)))
    assert some(account) == {"data_wait": 9.0, "compute": 3.1, "restart": 15.9}


def test_a_hang_counts_up_to_its_verdict() -> None:
    account = TimeAccount(look(0.0))
    hung = spent(Spending.DATA_WAIT, 1.0, startup=1.0)
    account.look(look(61.0, hung, position=(1, 3)))
    account.ended(look(65.0, hung, position=(1, 3)), lost=True)
    assert some(account) == {"startup": 1.0, "data_wait": 60.0, "restart": 4.0}


def test_two_deaths_are_one_loss_up_to_the_furthest_step() -> None:
    account = TimeAccount(look(0.0))
    account.ended(look(1.0, position=(2, 9)), lost=True)
    account.ended(look(2.0, position=(1, 4)), lost=True)
    account.look(look(5.0, spent(Spending.COMPUTE, 2.0), position=(2, 9)))
    account.look(look(6.0, spent(Spending.COMPUTE, 2.0), position=(2, 10)))
    account.look(look(7.0, spent(Spending.COMPUTE, 2.0), position=(2, 11)))
    assert account.seconds["compute"] == pytest.approx(1.0)
    assert account.seconds["restart"] == pytest.approx(6.0)


def test_what_nobody_counted_is_unexplained() -> None:
    account = TimeAccount(look(0.0, spent(Spending.COMPUTE, 0.0)))
    account.look(look(4.0, spent(Spending.COMPUTE, 3.0, compute=1.0)))
    assert some(account) == {"compute": 2.0, "unexplained": 2.0}


@given(
    st.lists(
        st.tuples(
            st.floats(0, 100), st.floats(0, 1000), st.booleans(), st.booleans(),
            st.sampled_from(list(Spending)), st.sampled_from(["look", "look", "lost", "done"]),
        ),
        max_size=30,
    )
)  # fmt: skip
def test_the_seconds_always_sum_to_the_wall_clock(events: list[Any]) -> None:
    account, awake_s, slept_s, counted = TimeAccount(look(0.0)), 0.0, 0.0, dict.fromkeys(OWN, 0.0)
    since_s, pid = 0.0, 1
    for number, (awake, slept, stopped, writes, doing, what) in enumerate(events, 1):
        counted[doing.name.lower()] += awake / 2
        awake_s, slept_s, since_s = awake_s + awake, slept_s + slept, awake_s + awake / 2
        one = look(
            awake_s, spent(doing, since_s, pid, number * writes, **counted), slept_s=slept_s,
            loop_stopped=stopped, position=(1, number % 7),
        )  # fmt: skip
        if what == "look":
            account.look(one)
        else:
            account.ended(one, lost=what == "lost")
            counted, pid = dict.fromkeys(OWN, 0.0), pid + 1
    assert sum(account.seconds.values()) == pytest.approx(awake_s + slept_s)
    assert set(account.seconds) == set(CATEGORIES)
