"""Start-up once, then epochs: whole ones, parts, and a longer first one."""

from __future__ import annotations

from typing import Any

import pytest

from ctrkit.core.config import make_cell
from ctrkit.core.records import Recommendation
from ctrkit.core.run_time import (
    Place,
    RunTime,
    end_of,
    measured_time,
    projected_time,
    saved_every,
)

TIME = RunTime(epoch_s=100.0, startup_s=10.0, first_epoch_s=150.0, low=0.5, high=2.0)


def recommendation(**projected_s: Any) -> Recommendation:
    fields = {f"projected_{name}": seconds for name, seconds in projected_s.items()}
    return Recommendation(cell=make_cell(), reason="", **fields)


@pytest.mark.parametrize(
    ("begin", "end", "seconds"),
    [
        (0, 3, 350), (0, 0, 0), (0, 0.5, 75), (0.5, 1.5, 125), (1, 3, 200), (2.5, 3, 50), (3, 2, 0),
    ],
)  # fmt: skip
def test_only_what_lies_in_the_first_epoch_goes_at_its_pace(
    begin: float, end: float, seconds: float
) -> None:
    assert TIME.epochs_s(end, begin=begin) == pytest.approx(seconds)
    assert TIME.total_s(end, begin=begin) == pytest.approx(seconds + 10)


@pytest.mark.parametrize("time", [TIME, RunTime(epoch_s=3.0, startup_s=60.0)])
def test_a_total_tells_its_epochs_however_long_the_start_up(time: RunTime) -> None:
    assert [time.epochs_in(time.total_s(epochs)) for epochs in (1, 2, 15)] == [1, 2, 15]
    assert time.epochs_in(0.0) == 1


def test_a_projection_gives_its_parts_and_the_interval_of_the_whole() -> None:
    found = projected_time(
        recommendation(
            epoch_s=100.0, startup_s=10.0, total_s=1010.0, total_s_low=909.0, total_s_high=1212.0
        )
    )
    assert found is not None
    assert found.total_s(3) == 310.0
    assert found.range_s(100.0) == (pytest.approx(90.0), pytest.approx(120.0))


def test_without_a_projected_total_the_interval_is_that_of_an_epoch() -> None:
    found = projected_time(recommendation(epoch_s=100.0, first_epoch_s=150.0))
    assert found is not None
    assert (found.first_epoch_s, found.low, found.high) == (150.0, None, None)
    assert projected_time(None) is None
    assert projected_time(recommendation()) is None


def test_the_measured_pace_is_a_mean() -> None:
    assert measured_time([]) is None
    assert measured_time([90.0, 110.0]) == RunTime(epoch_s=100.0)


def test_until_a_place_the_end_of_an_epoch_that_is_not_over_is_left_out() -> None:
    time = RunTime(epoch_s=100.0, first_epoch_s=150.0, ending_s=20.0)
    assert time.until_s(Place(trained=0.5, over=0)) == pytest.approx(75.0 - 10.0)
    assert time.until_s(Place(trained=1, over=0)) == pytest.approx(130.0)
    assert time.until_s(Place(trained=1, over=1)) == pytest.approx(150.0)
    assert time.between_s(Place(trained=1.5, over=1), end_of(3)) == pytest.approx(160.0)
    assert end_of(2.5) == Place(trained=2.5, over=2)


def test_a_run_that_saves_itself_more_often_takes_longer() -> None:
    terms_s = {"training": 90.0, "checkpoint": 2.0, "validation": 8.0, "within": 0.0}
    found = recommendation(
        epoch_s=100.0, epoch_s_low=90.0, total_s=1010.0, total_s_high=1100.0, startup_s=10.0,
        terms_s=terms_s,
    )  # fmt: skip
    often = saved_every(found, 20.0)
    assert often.projected_epoch_s == pytest.approx(108.0)
    assert often.projected_epoch_s_low == pytest.approx(98.0)
    assert often.projected_total_s == pytest.approx(1090.0)
    assert often.projected_total_s_high == pytest.approx(1180.0)
    assert (often.projected_epoch_s_high, often.projected_terms_s["within"]) == (None, 8.0)
    assert saved_every(often, 600.0) == found
    time = projected_time(often)
    assert time is not None
    assert time.ending_s == 10.0
    assert saved_every(recommendation(epoch_s=100.0), 1.0).projected_epoch_s == 100.0
