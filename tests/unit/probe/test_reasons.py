"""Why nothing can be recommended, in words whose advice helps."""

from __future__ import annotations

import pytest

from ctrkit.core.child_records import Measurement, Stamps
from ctrkit.core.config import RunSizes, make_cell
from ctrkit.probe.matrix import MatrixPlan
from ctrkit.probe.reasons import nothing_to_recommend
from ctrkit.probe.search import SearchResult
from ctrkit.probe.trials import Trial, TrialRequest, TrialResult

CELL = make_cell(threads=1)


def _search(batches: int, claim: int | None, *, complete: bool = True) -> SearchResult:
    stamps = Stamps(
        epoch=[1] * batches,
        step=list(range(1, batches + 1)),
        window=["warmup"] * batches,
        asked_s=[0.0] * batches,
        delivered_s=[0.0] * batches,
        done_s=[1.0] * batches,
        rows=[8] * batches,
    )
    measured = Measurement(
        kind="full",
        stamps=stamps,
        epoch_complete=complete,
        epoch_batches=batches,
        sizes=RunSizes(epochs=None, train_rows=None, train_batches=claim),
    )
    trial = Trial(
        request=TrialRequest(kind="full", cell=CELL),
        result=TrialResult(verdict="ok", reason="", measurement=measured),
        launch=1,
    )
    return SearchResult(plan=MatrixPlan(cells=(CELL,)), records=(), trials=(trial,), predictions=())


@pytest.mark.parametrize("batches", [1, 2, 3])
def test_an_epoch_that_ended_in_the_warm_up_is_no_short_budget(batches: int) -> None:
    text = str(nothing_to_recommend(_search(batches, 4000)))
    assert f"only {batches} batch" in text
    assert "its length is said to be 4,000" in text
    assert "let its len() be the number of batches" in text
    assert "--budget" not in text
    assert "len()" not in str(nothing_to_recommend(_search(batches, None)))


def test_an_epoch_that_the_budget_cut_needs_a_longer_one() -> None:
    assert "--budget" in str(nothing_to_recommend(_search(2, 4000, complete=False)))
