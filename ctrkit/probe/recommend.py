"""The recommendation: the best cell really run, its ties, and what else the user could do."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from ctrkit.core.cell import WITHOUT_WORKERS
from ctrkit.core.child_records import Inspection
from ctrkit.core.config import CELL_AXES, Cell
from ctrkit.core.records import Finding, Recommendation
from ctrkit.probe.alternatives import options
from ctrkit.probe.candidates import Candidate, candidates_of, differ, winner_of
from ctrkit.probe.cell_results import full_trials
from ctrkit.probe.findings import device_findings, findings
from ctrkit.probe.fitting_batch import fitting_options
from ctrkit.probe.last_resort import salvaged, unsure, unsure_finding
from ctrkit.probe.numerics import comparable, numerics_options
from ctrkit.probe.reasons import LAST_RESORT, nothing_to_recommend, reason_for
from ctrkit.probe.search import SearchResult
from ctrkit.probe.trials import projected_columns


def recommend(
    search: SearchResult,
    inspection: Inspection,
    *,
    deadline_s: float | None = None,
    host_findings: Sequence[Finding] = (),
    other_cores: float | None = 0.0,
) -> Recommendation:
    """Choose among the cells that were really run.

    Args:
        search: what was measured.
        inspection: inspection of the workload.
        deadline_s: time for the whole run; an option says how many epochs fit.
        host_findings: findings on the machine's state, appended to the others.
        other_cores: cores that other processes used meanwhile; None if unknown.

    Raises:
        NoViableCellError: every cell failed or was refused; the message has the reasons.
        InconclusiveError: no cell could be measured in the available time.
        UsageError: no cell can run, because the workload's input or result is wrong.
    """
    candidates, is_unsure = candidates_of(search.trials, inspection), False
    if not candidates:
        search = replace(search, trials=tuple(salvaged(search.trials)))
        candidates = [unsure(c) for c in candidates_of(search.trials, inspection)]
        is_unsure = True
    if not candidates:
        raise nothing_to_recommend(search)
    # a cell that computes something else is only an option, shown with its loss
    ranked = sorted(comparable(candidates, lambda c: c.cell), key=lambda c: c.objective)
    chosen = winner_of(ranked, search.plan.baseline) or ranked[0]
    tied = [c for c in ranked if not differ(c, ranked[0]) and c is not chosen]
    others = [c.cell for c in ranked if c is not chosen and c not in tied]
    others += [c.cell for c in tied]
    predicted = sorted(search.predictions, key=lambda p: p.objective)
    predicted = [p for p in predicted if p.cell.numerics == chosen.cell.numerics]
    others += [p.cell for p in predicted if p.cell != chosen.cell]
    return Recommendation(
        cell=chosen.cell,
        reason=LAST_RESORT if is_unsure else reason_for(chosen, ranked, tied, search, inspection),
        tied=[c.cell for c in tied],
        runner_up=others[0] if others else None,
        launches=_launches_projected(chosen.cell, search),
        findings=[
            *([unsure_finding(chosen.cell, search.trials)] if is_unsure else []),
            *findings(chosen, search, inspection, other_cores),
            *device_findings(chosen.cell, candidates, search),
            *host_findings,
        ],
        options=[
            *options(chosen, ranked, search, deadline_s),
            *fitting_options(search.trials, search.plan.cells),
            *numerics_options(chosen, candidates, search.trials),
        ],
        flags=list(chosen.projection.flags) if chosen.projection else [],
        dataloader_kwargs=dataloader_kwargs(chosen.cell, inspection.axes),
        **_projected_fields(chosen),
    )


def _projected_fields(chosen: Candidate) -> dict[str, Any]:
    """The fields of a recommendation with projected times."""
    fields: dict[str, Any] = projected_columns(chosen.projection)
    if chosen.projection is not None:
        fields["projected_startup_s"] = chosen.projection.startup.mean
        fields["projected_terms_s"] = {
            name: term.mean for name, term in chosen.projection.each_epoch.items()
        }
    return fields


def _launches_projected(cell: Cell, search: SearchResult) -> int:
    """The number of launches behind the projection: those that confirm it, if any."""
    counted = full_trials(cell, search.trials)
    return len([t for t in counted if t.request.confirms] or counted)


def dataloader_kwargs(cell: Cell, axes: Collection[str] = CELL_AXES) -> dict[str, Any]:
    """Arguments of `torch.utils.data.DataLoader` that match the cell, for the user's own loop.

    Axes that the workload does not take are left out, because the cell's value is not the loader's.
    """
    workers = 0 if cell.loader in WITHOUT_WORKERS else cell.workers
    kwargs: dict[str, Any] = {
        "batch_size": cell.batch_size,
        "num_workers": workers,
        "pin_memory": cell.pin,
    }
    if workers:
        kwargs |= {
            "prefetch_factor": cell.prefetch,
            "persistent_workers": cell.persistent,
            "multiprocessing_context": cell.start_method,
        }
    of_axis = {
        "batch_size": "batch_size", "num_workers": "workers", "pin_memory": "pin",
        "prefetch_factor": "prefetch", "persistent_workers": "persistent",
        "multiprocessing_context": "start_method",
    }  # fmt: skip
    return {name: value for name, value in kwargs.items() if of_axis[name] in axes}
