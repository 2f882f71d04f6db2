"""Findings on training losses that are NaN or infinite."""

from __future__ import annotations

from collections.abc import Sequence

from ctrkit.core.config import Cell
from ctrkit.core.losses import ADVICE
from ctrkit.core.records import Finding
from ctrkit.probe.trials import Trial


def bad_loss_finding(cell: Cell, trials: Sequence[Trial]) -> Finding | None:
    """A finding that a loss was NaN or infinite, in the recommended cell or else in another one.

    The trial's times count all the same: a step takes as long with any numbers.
    """
    launched = [t for t in trials if t.result.measurement is not None]
    for trial in sorted(launched, key=lambda t: t.cell != cell):
        bad = trial.result.measurement.bad_loss if trial.result.measurement is not None else None
        if bad is None:
            continue
        where = "" if trial.cell == cell else f" of {trial.cell.name}"
        text = f"{bad.words} of a trial{where}: the projection is of its time only, and {ADVICE}"
        return Finding(stage="loss", share=None, worth_x=None, text=text, confidence="high")
    return None
