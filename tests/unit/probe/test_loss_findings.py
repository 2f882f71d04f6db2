"""A trial with a NaN or infinite loss is not dropped: a finding names the step."""

from __future__ import annotations

from ctrkit.core.child_records import Measurement
from ctrkit.core.config import make_cell
from ctrkit.core.losses import BadLoss
from ctrkit.probe.loss_findings import bad_loss_finding
from ctrkit.probe.trials import Trial, TrialRequest, TrialResult

CELL, OTHER = make_cell(threads=1), make_cell(threads=2)


def trial(cell, bad=None):
    measured = Measurement(kind="full", bad_loss=bad)
    return Trial(
        request=TrialRequest(kind="full", cell=cell),
        result=TrialResult(verdict="ok", measurement=measured),
        launch=1,
    )


def test_the_recommended_cell_s_own_goes_first():
    trials = [trial(OTHER, BadLoss(2, "inf")), trial(CELL, BadLoss(4, "nan"))]
    finding = bad_loss_finding(CELL, trials)
    assert finding is not None
    assert finding.text.startswith("the training loss is nan at step 4 of a trial: the projection")


def test_another_cell_s_is_said_with_its_name():
    finding = bad_loss_finding(CELL, [trial(CELL), trial(OTHER, BadLoss(2, "inf"))])
    assert finding is not None
    assert f"inf at step 2 of a trial of {OTHER.cell_id}" in finding.text
    assert bad_loss_finding(CELL, [trial(CELL), trial(OTHER)]) is None
