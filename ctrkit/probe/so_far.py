"""The answer that a search would give after each trial, before it is over."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ctrkit.core.child_records import Inspection
from ctrkit.core.records import AnswerSoFar
from ctrkit.measure.projection import Projection
from ctrkit.measure.statistics import Interval, mean_interval
from ctrkit.measure.steps import sample_of_measurement
from ctrkit.probe.candidates import Candidate
from ctrkit.probe.cell_results import full_launches
from ctrkit.probe.predict import Prediction, sizes_for
from ctrkit.probe.trials import Trial, projected_columns


def answer_so_far(
    winner: Candidate | None,
    predictions: Iterable[Prediction],
    trials: Sequence[Trial],
    inspection: Inspection,
) -> AnswerSoFar | None:
    """The best answer so far; None if nothing is known.

    Args:
        winner: winner of the cells that were really run.
        predictions: predictions of the others.
        trials: all launches so far.
        inspection: inspection of the workload.
    """
    if winner is not None:
        launches = len(full_launches(winner.cell, trials))
        return AnswerSoFar(
            basis="measured",
            cell=winner.cell,
            launches=launches,
            **_columns(winner.step, winner.projection),
        )
    best = min(predictions, key=lambda one: one.objective, default=None)
    if best is not None:
        return AnswerSoFar(
            basis="predicted", cell=best.cell, **_columns(best.step, best.projection)
        )
    bounds = [one for trial in trials if (one := _bound(trial, inspection)) is not None]
    return min(bounds, key=lambda one: one.projected_epoch_s_low or 0.0, default=None)


def _columns(step: Interval, projection: Projection | None) -> dict[str, Any]:
    flags = list(projection.flags) if projection is not None else []
    return {
        "step_s": step.mean, "step_s_low": step.low, "step_s_high": step.high, "flags": flags,
        **projected_columns(projection),
    }  # fmt: skip


def _bound(trial: Trial, inspection: Inspection) -> AnswerSoFar | None:
    """A lower bound: an epoch takes at least its training steps; for endless data, a step."""
    measured, cell = trial.result.measurement, trial.cell
    if trial.request.kind != "compute" or trial.failed or measured is None:
        return None
    sample = sample_of_measurement(measured, 1)
    if sample is None:
        return None
    step, sizes = mean_interval([sample]), sizes_for(inspection, cell.batch_size)
    batches = None if sizes is None else sizes.train_batches
    epoch_s = None if batches is None else step.low * batches
    epochs = None if sizes is None else sizes.epochs
    return AnswerSoFar(
        basis="bound",
        cell=cell,
        step_s_low=step.low,
        projected_epoch_s_low=epoch_s,
        projected_total_s_low=None if epoch_s is None or epochs is None else epoch_s * epochs,
    )
