"""The progress of a stage, with fake clocks."""

from __future__ import annotations

import pytest

from ctrkit.ctr.data.stage_progress import StageClock


class Clocks:
    def __init__(self) -> None:
        self.wall_s, self.cpu_s = 100.0, 7.0
        self.stage = StageClock(lambda: self.wall_s, lambda: self.cpu_s)


def test_a_stage_is_timed_from_its_own_begin() -> None:
    clocks = Clocks()
    clocks.wall_s = 150.0
    assert clocks.stage.begin("joining").state == "running"
    clocks.wall_s, clocks.cpu_s = 160.0, 27.0
    found = clocks.stage.advance(50, 200)
    assert (found.name, found.rows, found.share) == ("joining", 50, 0.25)
    assert (found.elapsed_s, found.cpu_s, found.rows_per_s) == (10.0, 20.0, 5.0)
    done = clocks.stage.end()
    assert (done.state, done.share, done.rows) == ("done", 1.0, 50)


def test_the_share_never_goes_back() -> None:
    stage = Clocks().stage
    stage.begin("sorting")
    stage.advance(0, 1000)
    found = stage.query(40.0, 1.0)
    assert found is not None
    assert (found.share, found.rows) == (pytest.approx(0.4), 400)
    found = stage.query(10.0, 1.0)
    assert found is not None
    assert (found.share, found.rows) == (pytest.approx(0.4), 400)
    assert stage.advance(500, 1000, begin=0.7).share == pytest.approx(0.85)


def test_between_stages_a_query_tells_nothing() -> None:
    stage = Clocks().stage
    assert stage.query(50.0, 1.0) is None
    stage.begin("a")
    stage.end()
    assert stage.query(50.0, 1.0) is None
