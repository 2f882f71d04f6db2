"""The cells that were really run, and whether two of them differ, tie, or cannot be compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ctrkit.core.child_records import Inspection
from ctrkit.core.config import Cell
from ctrkit.measure.projection import Projection
from ctrkit.measure.statistics import Interval, mean_interval
from ctrkit.measure.steps import mean_step_s, samples_of
from ctrkit.probe.cell_results import full_launches, objective_of, project_cell, turn_of
from ctrkit.probe.finalists import Relation, relation
from ctrkit.probe.same_epoch import has_other_epoch, other_epochs
from ctrkit.probe.trials import Trial

#: A tie does not justify a likely loss: a tied cell with fewer workers is only preferred if it was
#: measured at most this factor slower.
_LIKELY_LOSS = 1.05
#: A script stays as written while nothing seems faster by more than this factor: noise hides a
#: large gain as easily as a small one.
_LIKELY_GAIN = 1.1
#: Launches of one cell at different places of the epoch may see other data if they differ by more
#: than this.
_PLACES_DIFFER = 0.1


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A cell that was really run.

    Attributes:
        objective: its total in seconds, else seconds per row; from all its launches, to rank it.
        projection: from the launches that confirm it, if there are any.
        relative_half: uncertainty of the objective's mean, as a share.
    """

    cell: Cell
    objective: float
    relative_half: float
    peak_rss_bytes: int
    projection: Projection | None
    step: Interval


def candidates_of(trials: Sequence[Trial], inspection: Inspection) -> list[Candidate]:
    """Cells with a full trial that is ok; else those whose process did not end; else cut ones.

    A cell that trains on another epoch is left out, unless there is no other cell.
    """
    full = [t for t in trials if t.request.kind == "full"]
    clean = {t.cell: None for t in full if t.ok and t.result.verdict == "ok"}
    complete = {t.cell: None for t in full if t.ok}
    ran = clean or complete or {t.cell: None for t in full if t.usable}
    others = other_epochs(trials)
    candidates = []
    alike = [cell for cell in ran if not has_other_epoch(cell, others)] or list(ran)
    comparable = at_common_places(alike, trials)
    for cell in alike:
        step = mean_interval(samples_of(full_launches(cell, comparable), turn_of(cell)))
        ranked_by = objective_of(cell, comparable, inspection, step)
        peaks = [t.result.peak_rss_bytes or 0 for t in trials if t.cell == cell]
        candidates.append(
            Candidate(
                cell=cell,
                objective=ranked_by.value,
                relative_half=ranked_by.relative_half,
                peak_rss_bytes=max(peaks, default=0),
                projection=project_cell(cell, trials, inspection),
                step=step,
            )
        )
    if len({candidate.projection is None for candidate in candidates}) > 1:
        # a whole run's time cannot compete with a time per row
        return [
            replace(
                c, objective=c.step.mean / c.cell.batch_size, relative_half=c.step.relative_half
            )
            for c in candidates
        ]
    return candidates


def at_common_places(cells: Sequence[Cell], trials: Sequence[Trial]) -> Sequence[Trial]:
    """The trials to compare cells by: if places differ, only places that all cells have.

    So a cell is not slower only because it also ran where batches cost more.
    """
    places: dict[Cell, dict[float, list[float]]] = {cell: {} for cell in cells}
    for trial in trials:
        measured = trial.result.measurement
        step_s = None if measured is None else mean_step_s(measured)
        if trial.request.kind == "full" and trial.cell in places and trial.usable and step_s:
            places[trial.cell].setdefault(_place(trial), []).append(step_s)
    means = [[sum(at) / len(at) for at in own.values()] for own in places.values()]
    varies = any(own and max(own) > min(own) * (1 + _PLACES_DIFFER) for own in means)
    common = set.intersection(*(set(own) for own in places.values())) if places else set()
    if not varies or not common:
        return trials
    return [t for t in trials if t.request.kind != "full" or _place(t) in common]


def _place(trial: Trial) -> float:
    """The place in its epoch at which a launch measured, as a share."""
    measured = trial.result.measurement
    elsewhere = measured is not None and measured.first_batch > 0
    return trial.request.windows.epoch_share if elsewhere else 0.0


def compare(one: Candidate, other: Candidate) -> Relation:
    """Whether two cells differ, by the 95 % interval of their ratio.

    Relative errors of a ratio, which are those of its logarithm, add in quadrature (first-order
    propagation).
    """
    if one is other or other.objective <= 0:
        return "tied"
    ratio = one.objective / other.objective
    return relation(ratio, math.hypot(one.relative_half, other.relative_half))


def differ(one: Candidate, other: Candidate) -> bool:
    """Whether they are known to differ; an undecided pair finally counts as tied."""
    return compare(one, other) == "different"


def prefer(tied: Sequence[Candidate]) -> Candidate:
    """Of tied cells, the one with fewer workers, then less memory; never one that likely loses."""
    best = min(c.objective for c in tied)
    eligible = [c for c in tied if c.objective <= best * _LIKELY_LOSS]
    return min(eligible, key=lambda c: (c.cell.workers, c.peak_rss_bytes, c.objective))


def winner_of(candidates: Sequence[Candidate], baseline: Cell | None = None) -> Candidate | None:
    """The candidate to recommend; None if there is none.

    `baseline`, a script as written, is not changed for a small gain that is not proven.
    """
    if not candidates:
        return None
    best = min(candidates, key=lambda c: c.objective)
    tied = [c for c in candidates if not differ(c, best)]
    kept = [
        c for c in tied
        if c.cell == baseline and c.objective <= best.objective * _LIKELY_GAIN
    ]  # fmt: skip
    return kept[0] if kept else prefer(tied)
