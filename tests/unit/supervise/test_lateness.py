"""When a run will end, whether that is late, and why: rows in, causes out."""

from __future__ import annotations

import time
from typing import Any

import pytest

from ctrkit.core.run_time import Place, RunTime
from ctrkit.supervise.lateness import (
    SessionProgress,
    forecast,
    late_by_s,
    late_cause,
)
from ctrkit.supervise.ledger import LedgerRow

HOUR = 3600.0
PROJECTED = RunTime(startup_s=10.0, epoch_s=HOUR, low=0.95, high=1.05)
BEGAN = time.mktime((2026, 3, 5, 1, 0, 0, 0, 0, -1))  # at 01:00 local time


def standing(**values: Any) -> SessionProgress:
    """A session of 10 epochs; whole numbers of `done` are epochs that are over."""
    defaults = {
        "epochs": 10, "began": 0.0, "done": 1.0, "elapsed_s": HOUR + 10.0, "productive_s": HOUR,
        "steps": 500,
    }  # fmt: skip
    values = defaults | values
    for name in ("began", "done"):
        if not isinstance(values[name], Place):
            values[name] = Place(trained=values[name], over=int(values[name]))
    values.setdefault("stepping_s", values["productive_s"])
    return SessionProgress(**values)


def row(minute: int = 0, **values: Any) -> LedgerRow:
    """A minute in which nothing is wrong: 3 % data wait, the rest computing."""
    seconds = values.pop("seconds", {"data_wait": 1.8, "compute": 58.2})
    defaults: dict[str, Any] = {
        "ended_unix_s": BEGAN + 60.0 * (minute + 1), "session": 1, "launch": 1, "epoch": 1,
        "step": 10, "wall_s": sum(seconds.values()), "rows": 100, "steps": 10, "rows_per_s": 1.7,
        "cpu_cores": 2.0, "other_cores": 0.1, "rss_bytes": None, "pss_bytes": None,
        "available_bytes": None, "swap_used_bytes": 0, "swapped_in_bytes": 0,
        "swapped_out_bytes": 0, "device_bytes": None, "temperature_c": None, "throttles": None,
        "speed_limit": None,
    }  # fmt: skip
    return LedgerRow(**(defaults | values), seconds=seconds)


HEALTHY = [row(minute) for minute in range(60)]


def test_the_end_is_at_the_runs_own_pace_once_that_is_known() -> None:
    early = forecast(standing(done=0.01, elapsed_s=50.0, productive_s=40.0, steps=5), PROJECTED)
    assert early is not None
    assert early.total_s == pytest.approx(50.0 + 9.99 * HOUR)  # as projected still
    slow = forecast(standing(productive_s=2 * HOUR, elapsed_s=2 * HOUR), PROJECTED)
    assert slow is not None
    assert slow.total_s == pytest.approx(20 * HOUR)
    assert slow.low_s == pytest.approx(2 * HOUR + 18 * HOUR * 0.95)
    assert slow.high_s == pytest.approx(2 * HOUR + 18 * HOUR * 1.05)


def test_without_a_projection_the_end_is_known_after_some_steps_only() -> None:
    assert forecast(standing(done=0.01, productive_s=40.0, steps=5), None) is None
    found = forecast(standing(), None)
    assert found is not None
    assert found.low_s == found.total_s == found.high_s == pytest.approx(10 * HOUR + 10.0)


def test_few_very_slow_steps_are_a_pace_too() -> None:
    # 283 s a batch, as in the story: 514 batches an epoch
    slow = standing(done=3 / 514, elapsed_s=860.0, productive_s=849.0, steps=3)
    found = forecast(slow, PROJECTED)
    assert found is not None
    assert late_by_s(slow, PROJECTED, found) > 300 * HOUR


@pytest.mark.parametrize(
    ("elapsed_s", "late_s"),
    [
        (HOUR + 10.0, 0.0),
        (1.4 * HOUR, 0.0),  # still within the interval
        (1.53 * HOUR, 0.0),  # a little beyond it
        (8.2 * HOUR, 17.2 * HOUR - 1.05 * (10 * HOUR + 10.0)),
    ],
)
def test_a_run_is_late_once_its_end_leaves_the_interval(elapsed_s: float, late_s: float) -> None:
    now = standing(elapsed_s=elapsed_s)
    expected = forecast(now, PROJECTED)
    assert expected is not None
    assert late_by_s(now, PROJECTED, expected) == pytest.approx(late_s)


def test_a_resumed_run_is_held_to_what_it_has_still_to_do() -> None:
    resumed = standing(began=8.0, done=8.0, elapsed_s=5.0, productive_s=0.0, steps=0)
    expected = forecast(resumed, PROJECTED)
    assert expected is not None
    assert expected.total_s == pytest.approx(PROJECTED.total_s(2))
    assert late_by_s(resumed, PROJECTED, expected) == 0.0


def cause(rows: list[LedgerRow], restarts: int = 0, **values: Any) -> str:
    found = late_cause(rows, standing(**values), PROJECTED, restarts)
    assert found.advice
    return found.words


def test_a_sleep_a_stop_and_restarts_are_named() -> None:
    slept = row(60, seconds={"asleep": 25_920.0, "compute": 5.0})
    assert cause([*HEALTHY, slept]) == "the host slept 7 h 12 min"
    stopped = row(60, seconds={"stopped": 720.0, "compute": 5.0})
    assert cause([*HEALTHY, stopped]) == "the run was stopped for 12 min 00 s"
    lost = [row(m, seconds={"restart": 60.0}) for m in range(60, 64)]
    assert cause([*HEALTHY, *lost], restarts=2) == "restarted twice: 4 min 00 s lost"
    assert cause([*HEALTHY, *lost], restarts=3) == "restarted 3 times: 4 min 00 s lost"
    slow_start = row(seconds={"startup": 900.0})
    assert cause([slow_start, *HEALTHY]) == "the start took 14 min 50 s longer than projected"


def waiting(minute: int, **values: Any) -> LedgerRow:
    return row(minute, seconds={"data_wait": 36.6, "compute": 23.4}, steps=4, **values)


def test_a_loader_that_fell_behind_is_named_with_who_took_the_cores() -> None:
    rows = [*HEALTHY, *(waiting(m, other_cores=1.6) for m in range(60, 240))]
    words = cause(rows, productive_s=4 * HOUR, done=2.0)
    assert words == "data wait rose from 3 % to 61 %: other processes take 1.6 cores"
    alone = [*HEALTHY, *(waiting(m) for m in range(60, 240))]
    assert cause(alone, done=2.0) == "data wait rose from 3 % to 61 %"
    always = [waiting(m) for m in range(240)]
    assert cause(always, done=2.0) == "data wait takes 61 % of the time"


def test_swap_is_named_with_its_beginning_and_old_pages_are_not() -> None:
    rows = [*HEALTHY[:14], *HEALTHY[15:]]
    swapping = [
        waiting(m, swapped_in_bytes=20_000_000, swapped_out_bytes=11_000_000)
        for m in range(74, 174)
    ]
    assert cause(rows + swapping, done=1.5) == "swapping since 02:14: 3.1 GB"
    little = [row(m, swapped_out_bytes=1_000_000) for m in range(200)]
    assert "swap" not in cause(little, done=1.0)


def test_heat_and_others_are_named() -> None:
    hot = [row(m, throttles=7, temperature_c=98.0) for m in range(60, 180)]
    assert cause(HEALTHY + hot, done=1.0) == (
        "the processor has been slowed down because it is hot since 02:00 (up to 98 °C)"
    )
    limited = [row(m, speed_limit=0.5) for m in range(60, 180)]
    assert "slowed down because it is hot since 02:00" in cause(HEALTHY + limited, done=1.0)
    crowded = [row(m, other_cores=1.6) for m in range(180)]
    assert cause(crowded, done=1.0) == "other processes take 1.6 cores"


def test_where_nothing_explains_it_that_is_said() -> None:
    rows = [row(m) for m in range(126)]
    words = cause(rows, done=1.0, productive_s=2.1 * HOUR)
    assert words == (
        "an epoch takes 2.1 times what was projected; compute takes 97 % of the time, "
        "and no measurement of the machine explains it"
    )
    assert late_cause([], standing(), None, 0).words


def test_steps_that_get_slower_all_through_an_epoch_are_named_as_that() -> None:
    rising = [row(minute, steps=600 // (minute + 1)) for minute in range(6)]
    cause = late_cause(rising, standing(done=0.01), PROJECTED, 0)
    assert "steps get slower all through epoch 1: 100 ms at first, 600 ms now" in cause.words
    assert "sorted by length" in cause.advice
    for others in (rising[::-1], [*rising[:3], row(4, steps=600), *rising[3:]], rising[:2]):
        assert "get slower" not in late_cause(others, standing(done=0.01), PROJECTED, 0).words
