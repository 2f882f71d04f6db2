import dataclasses

import pytest

from ctrkit.core.config import make_cell
from ctrkit.core.records import Measurement, Stamps
from ctrkit.probe.candidates import candidates_of
from ctrkit.probe.cell_results import has_drifted, objective, project_cell
from ctrkit.probe.trials import Trial, TrialRequest, TrialResult

A, B = (make_cell(loader="batches", workers=w, threads=2) for w in (0, 1))


def full(cell, step_s, *, confirms=False, steps=50):
    stamps = Stamps(
        epoch=[1] * steps, step=list(range(1, steps + 1)), window=["throughput"] * steps,
        asked_s=[i * step_s for i in range(steps)], delivered_s=[i * step_s for i in range(steps)],
        done_s=[(i + 1) * step_s for i in range(steps)], rows=[1] * steps,
    )  # fmt: skip
    measurement = Measurement(
        kind="full", stamps=stamps, startup_s=4.0, restart_s=1.0, throughput_s=step_s * steps,
        throughput_steps=steps, validation_batch_s=[0.1] * 20, checkpoint_s=[1.0, 1.0],
        complete=True,
    )  # fmt: skip
    return Trial(
        request=TrialRequest(kind="full", cell=cell, confirms=confirms),
        result=TrialResult(verdict="ok", measurement=measurement),
        launch=1,
    )


def test_the_winner_is_projected_from_the_launches_made_since_and_ranked_by_all(inspection):
    trials = [full(A, 1.0), full(B, 1.3), full(A, 1.2, confirms=True), full(A, 1.2, confirms=True)]
    known = inspection()
    assert project_cell(A, trials, known).step.mean == pytest.approx(1.2)
    ranked = project_cell(A, trials, known, ranking=True)
    assert ranked.step.mean == pytest.approx((1.0 + 1.2 + 1.2) / 3)
    assert objective(A, trials, known) == ranked.total.mean
    (candidate,) = [c for c in candidates_of(trials, known) if c.cell == A]
    assert candidate.objective == ranked.total.mean
    assert candidate.projection.step.mean == pytest.approx(1.2)


def test_one_launch_since_is_not_provisional_where_there_were_others(inspection):
    trials = [full(A, 1.0), full(B, 1.3), full(A, 1.2, confirms=True)]
    assert "provisional" not in project_cell(A, trials, inspection()).flags
    assert "provisional" in project_cell(B, trials, inspection()).flags


@pytest.mark.parametrize(("last", "drifted"), [(1.0, False), (1.02, False), (1.05, True)])
def test_the_first_cell_run_last_shows_whether_the_machine_has_changed(inspection, last, drifted):
    trials = [full(A, 1.0), full(B, 2.0), full(B, 2.0), full(A, last)]
    assert has_drifted(trials) is drifted
    for cell in (A, B):
        assert ("drift" in project_cell(cell, trials, inspection()).flags) is drifted


def test_without_a_second_launch_of_the_first_cell_nothing_is_known_of_drift(inspection):
    assert not has_drifted([full(A, 1.0), full(B, 2.0), full(B, 3.0)])
    assert not has_drifted([])
    failed = dataclasses.replace(full(A, 9.0), result=TrialResult(verdict="crashed"))
    assert not has_drifted([full(A, 1.0), failed])
