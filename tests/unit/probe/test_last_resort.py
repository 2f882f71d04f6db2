"""A probe whose trials were all cut answers from their steps, widely, and says so."""

from __future__ import annotations

import pytest

from ctrkit.core.child_records import Measurement, Stamps
from ctrkit.core.config import make_cell
from ctrkit.core.errors import InconclusiveError
from ctrkit.probe.last_resort import salvaged
from ctrkit.probe.matrix import MatrixPlan
from ctrkit.probe.recommend import recommend
from ctrkit.probe.search import SearchResult
from ctrkit.probe.trials import Trial, TrialRequest, TrialResult

CELL = make_cell(threads=1)


def cut(windows, step_s=20.0, verdict="skipped", **fields):
    steps = len(windows)
    stamps = Stamps(
        epoch=[1] * steps, step=list(range(1, steps + 1)), window=list(windows),
        asked_s=[i * step_s for i in range(steps)], delivered_s=[i * step_s for i in range(steps)],
        done_s=[(i + 1) * step_s for i in range(steps)], rows=[8] * steps,
    )  # fmt: skip
    measured = Measurement(kind="full", startup_s=9.0, stamps=stamps, **fields)
    return Trial(
        request=TrialRequest(kind="full", cell=CELL),
        result=TrialResult(verdict=verdict, reason="budget", measurement=measured),
        launch=1,
    )


def search_of(trial):
    plan = MatrixPlan(cells=(CELL,))
    return SearchResult(plan=plan, records=(), trials=(trial,), predictions=())


@pytest.mark.parametrize(
    ("windows", "usable"),
    [([], False), (["warmup"], True), (["warmup", "throughput"], True)],
)
def test_any_step_of_a_cut_trial_counts_then(windows, usable):
    trial = cut(windows)
    assert not trial.usable
    assert salvaged([trial])[0].usable is usable


def test_what_failed_or_came_to_its_end_is_left_as_it_is():
    for trial in (cut(["warmup"], verdict="crashed"), cut(["warmup", *["throughput"] * 3])):
        assert salvaged([trial]) == [trial]


def test_the_answer_is_wide_provisional_and_says_what_it_rests_on(inspection):
    found = recommend(search_of(cut(["warmup"])), inspection(devices=["cpu"]))
    assert found.cell == CELL
    assert "no trial came to its end" in found.reason
    assert found.projected_epoch_s == pytest.approx(514 * 20.0, rel=0.3)
    assert found.projected_epoch_s_low <= found.projected_epoch_s / 3
    assert found.projected_epoch_s_high >= found.projected_epoch_s * 3
    assert "provisional" in found.flags
    assert found.findings[0].text.startswith("the budget ended before a trial did: this rests on 1")
    with pytest.raises(InconclusiveError):
        recommend(search_of(cut([])), inspection(devices=["cpu"]))
