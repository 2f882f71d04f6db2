"""All cells of a script share the validation and checkpoints of the script as written."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from ctrkit.core.child_records import Measurement, Stamps
from ctrkit.core.config import RunSizes, make_cell
from ctrkit.core.script_records import ScriptLoader, ScriptSeen
from ctrkit.probe.beside import launches_beside
from ctrkit.probe.cell_results import project_cell
from ctrkit.probe.predict import predict
from ctrkit.probe.trials import Trial, TrialRequest, TrialResult

SIZES = RunSizes(
    epochs=5, train_batches=100, validation_batches=40, validations=4, checkpoints=4
)  # fmt: skip
NOT_COUNTED = RunSizes(epochs=5, train_batches=100)
AS_WRITTEN, TWO, EIGHT = (
    make_cell(loader="script", workers=w, threads=2, batch_size=8) for w in (0, 2, 8)
)


def trial(
    cell, step_s, *, kind="full", verdict="ok", validation_workers: int | None = 0, **fields: Any
):
    steps = 20
    stamps = Stamps(
        epoch=[1] * steps, step=list(range(1, steps + 1)), window=["throughput"] * steps,
        asked_s=[i * step_s for i in range(steps)], delivered_s=[i * step_s for i in range(steps)],
        done_s=[(i + 1) * step_s for i in range(steps)], rows=[8] * steps,
    )  # fmt: skip
    values: dict[str, Any] = {
        "startup_s": 1.0, "first_batch_s": 0.1, "restart_s": 0.1, "throughput_s": step_s * steps,
        "throughput_steps": steps, "sizes": NOT_COUNTED,
    }  # fmt: skip
    seen = None
    if validation_workers is not None:
        seen = ScriptSeen(
            pid=1,
            loaders=[ScriptLoader(number=1, dataset="D", batch_size=8, workers=validation_workers)],
            train_loader=0,
        )
    return Trial(
        request=TrialRequest(kind=kind, cell=cell),
        result=TrialResult(
            verdict=verdict, seen=seen,
            measurement=Measurement(kind=kind, stamps=stamps, **values | fields),
        ),
        launch=1,
    )  # fmt: skip


def as_written():
    return trial(
        AS_WRITTEN, 0.1, sizes=SIZES, complete=True, validation_batch_s=[0.5] * 20,
        validation_restart_s=0.25, checkpoint_s=[0.125, 0.125],
    )  # fmt: skip


#: one of the four validations and checkpoints of an epoch is at its end
EACH = {"validation": 5 * (10 * 0.5 + 0.25), "checkpoint": 5 * 0.125}
PARTS = {**EACH, "within": 3 * sum(EACH.values())}


def parts(projection):
    assert projection is not None
    terms = projection.terms
    beside = sum(term.mean for name, term in terms.items() if name != "startup")
    assert 5 * projection.epoch.mean == pytest.approx(beside)
    return {name: terms[name].mean for name in PARTS}


def known(inspection):
    return inspection(default_batch_size=8, sizes=SIZES, loaders=["script"])


def test_a_launch_that_was_cut_short_has_those_of_the_script_as_written(inspection):
    cut = trial(
        EIGHT, 0.01, verdict="skipped", validation_workers=None, validation_batch_s=[0.1] * 20
    )
    trials = [as_written(), cut]
    for cell in (AS_WRITTEN, EIGHT):
        assert parts(project_cell(cell, trials, known(inspection))) == pytest.approx(PARTS)
    alone = project_cell(EIGHT, [cut], known(inspection), beside=trials)
    assert parts(alone) == pytest.approx(PARTS)


def test_a_cell_that_was_only_predicted_has_them_too(inspection):
    trials = [
        as_written(),
        trial(AS_WRITTEN, 0.02, kind="compute", validation_batch_s=[0.001]),
        trial(AS_WRITTEN, 0.08, kind="loader"),
    ]
    found = predict(TWO, trials, known(inspection), cores=8)
    assert found is not None
    assert parts(found.projection) == pytest.approx(PARTS)


def test_a_launch_that_was_cut_short_does_not_correct_a_prediction(inspection):
    trials = [
        as_written(),
        trial(AS_WRITTEN, 0.02, kind="compute"),
        trial(AS_WRITTEN, 0.08, kind="loader"),
    ]
    before = predict(TWO, trials, known(inspection), cores=8)
    cut = trial(EIGHT, 0.001, verdict="skipped")
    after = predict(TWO, [*trials, cut], known(inspection), cores=8)
    assert before is not None
    assert after is not None
    assert after.step == before.step


def test_a_placeholder_may_vary_the_validation_too():
    """Then it is the cell's own that counts; without one, the loader that validates stays."""
    own = trial(EIGHT, 0.01, validation_workers=8, sizes=SIZES, validation_batch_s=[0.1] * 20)
    trials = [as_written(), own]
    assert launches_beside(EIGHT, trials) == [own.result.measurement]
    assert launches_beside(TWO, trials) == [trials[0].result.measurement]


def test_another_device_and_a_workload_time_their_own():
    other = dataclasses.replace(EIGHT, device="cuda")
    workload = dataclasses.replace(EIGHT, loader="batches")
    assert launches_beside(other, [as_written()]) == []
    assert launches_beside(workload, [as_written()]) == []
