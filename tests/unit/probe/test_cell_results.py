import dataclasses
from dataclasses import replace

import pytest

from ctrkit.core.child_records import Measurement, Stamps
from ctrkit.core.config import make_cell
from ctrkit.measure.statistics import mean_interval
from ctrkit.measure.steps import samples_of
from ctrkit.probe.candidates import candidates_of
from ctrkit.probe.cell_results import (
    costs_of,
    drift_of,
    objective_of,
    project_cell,
)
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
    step = mean_interval(samples_of([t.result.measurement for t in trials if t.cell == A]))
    assert objective_of(A, trials, known, step).value == ranked.total.mean
    (candidate,) = [c for c in candidates_of(trials, known) if c.cell == A]
    assert candidate.objective == ranked.total.mean
    assert candidate.projection.step.mean == pytest.approx(1.2)


def test_whole_launches_tell_what_a_launch_costs_where_no_step_was_measured_alone(inspection):
    """Without that, no winner of a short budget was ever launched again to confirm it."""
    more = replace(B, workers=4)
    costs = costs_of(B, [full(A, 3.0), full(B, 1.5)], inspection(), 8)
    assert (costs.step_s, costs.checkpoint_s) == (1.5, 1.0)
    assert costs.validation_batch_s == pytest.approx(0.1)
    assert costs_of(more, [full(A, 3.0), full(B, 1.5)], inspection(), 8).step_s == 1.5
    waiting = full(B, 1.5)  # for 80 % of its step
    late = [at_s + 1.2 for at_s in waiting.result.measurement.stamps.asked_s]
    stamps = replace(waiting.result.measurement.stamps, delivered_s=late)
    told = replace(waiting.result, measurement=replace(waiting.result.measurement, stamps=stamps))
    trials = [replace(waiting, result=told)]
    assert costs_of(more, trials, inspection(), 8).step_s == pytest.approx(1.5 / 4)
    assert costs_of(A, trials, inspection(), 8).step_s == 1.5
    other_batch = replace(B, batch_size=7)
    assert costs_of(other_batch, [full(A, 3.0), full(B, 1.5)], inspection(), 8).step_s == 0.0


def test_where_restarts_matter_they_decide_whether_cells_are_tied(inspection):
    def runs(cell, restart_s):
        trial = full(cell, 1.0)
        measured = replace(trial.result.measurement, restart_s=restart_s)
        return replace(trial, result=replace(trial.result, measurement=measured))

    known = inspection()
    trials = [runs(A, 1.0), runs(A, 1.0), runs(B, 400.0), runs(B, 400.0)]
    found = {c.cell: c for c in candidates_of(trials, known)}
    # a step takes both as long; what B takes between two epochs was timed twice only
    assert found[A].step.relative_half == pytest.approx(found[B].step.relative_half)
    assert found[B].objective > 1.4 * found[A].objective
    assert found[B].relative_half > 2 * found[A].relative_half


def test_one_launch_since_is_not_provisional_where_there_were_others(inspection):
    trials = [full(A, 1.0), full(B, 1.3), full(A, 1.1), full(A, 1.2, confirms=True)]
    assert "provisional" not in project_cell(A, trials, inspection()).flags
    assert "provisional" in project_cell(B, trials, inspection()).flags


@pytest.mark.parametrize(("last", "drifted"), [(1.0, False), (1.05, False), (1.2, True)])
def test_the_first_cell_run_last_shows_whether_the_machine_has_changed(inspection, last, drifted):
    between = [full(B, 2 * last ** (i / 4)) for i in (1, 2, 3)]
    trials = [full(A, 1.0), *between, full(A, last)]
    assert (drift_of(trials) is not None) is drifted
    for cell in (A, B):
        assert ("drift" in project_cell(cell, trials, inspection()).flags) is drifted


def rising(cell, steps):
    """A launch whose steps take a hundredth of a second longer each."""
    trial, done_s = full(cell, 1.0, steps=steps), [0.0]
    for i in range(steps):
        done_s.append(done_s[-1] + 0.1 + 0.01 * i)
    stamps = dataclasses.replace(
        trial.result.measurement.stamps, asked_s=done_s[:-1], done_s=done_s[1:]
    )
    measured = dataclasses.replace(trial.result.measurement, stamps=stamps, throughput_s=done_s[-1])
    return dataclasses.replace(
        trial, result=dataclasses.replace(trial.result, measurement=measured)
    )


def test_a_longer_window_of_steps_that_get_slower_is_no_drift(inspection):
    trials = [rising(A, 40), rising(A, 80)]
    assert drift_of(trials) is None
    assert "slower and slower" in project_cell(A, trials, inspection()).flags


def test_a_time_of_the_run_is_no_rival_of_a_time_per_row(inspection):
    counted, known = full(A, 1.0), inspection(sizes=None)
    measured = dataclasses.replace(
        counted.result.measurement, epoch_complete=True, epoch_batches=50, epoch_s=50.0
    )
    counted = dataclasses.replace(
        counted, result=dataclasses.replace(counted.result, measurement=measured)
    )
    other = dataclasses.replace(A, batch_size=32)
    sized, unsized = candidates_of([counted, full(other, 0.9)], known)
    assert sized.projection is not None
    assert unsized.projection is None
    assert sized.objective == pytest.approx(1.0 / A.batch_size)
    assert unsized.objective == pytest.approx(0.9 / 32)


def test_without_a_second_launch_of_the_first_cell_nothing_is_known_of_drift(inspection):
    assert drift_of([full(A, 1.0), full(B, 2.0), full(B, 3.0)]) is None
    assert drift_of([]) is None
    failed = dataclasses.replace(full(A, 9.0), result=TrialResult(verdict="crashed"))
    assert drift_of([full(A, 1.0), failed]) is None
