"""What a probe found out about other numbers of workers than the chosen one."""

from __future__ import annotations

from ctrkit.core.child_records import Inspection
from ctrkit.core.config import Cell
from ctrkit.measure.leeway import Leeway
from ctrkit.probe.candidates import Candidate
from ctrkit.probe.cell_failures import failure_of
from ctrkit.probe.same_epoch import other_epochs
from ctrkit.probe.search import SearchResult


def leeway_of(
    chosen: Candidate, search: SearchResult, inspection: Inspection, other_cores: float | None
) -> Leeway:
    """What is known about cells that differ from the chosen one only in their workers.

    Only cells that ran without failure count as tried.
    """
    like = [c for c in search.plan.cells if _differs_in_workers(c, chosen.cell)]
    ends = {c: {t.result.verdict for t in search.full_trials(c) if t.ok} for c in like}
    tried = {c.workers for c in like if "ok" in ends[c]}
    failures = {c.workers: failure_of(c, search.trials) for c in like}
    failures |= {c.workers: "shutdown-hang" for c in like if "shutdown-hang" in ends[c]}
    failed = {n: why.partition(":")[0] for n, why in failures.items() if why and n not in tried}
    predictions = [p for p in search.predictions if p.cell in ends]
    unknown = [p for p in predictions if p.cell.workers not in {*tried, *failed}]
    promising = {p.cell.workers for p in unknown if p.objective < chosen.objective}
    return Leeway(
        axes=inspection.axes,
        loaders=inspection.loaders,
        tried=tried,
        predicted={p.cell.workers for p in unknown} - promising,
        promising=promising,
        failed=failed,
        idle=_idle_words(chosen, search),
        repeats=any(c.workers for c in other_epochs(search.trials)),
        other_cores=other_cores,
    )


def _idle_words(chosen: Candidate, search: SearchResult) -> str:
    """Why there are no workers although a user's loader takes their number.

    If it was only seen without workers, a loader without a DataLoader might make one when asked for
    some; one that was asked for workers tells for sure.
    """
    if chosen.cell.loader != "custom":
        return ""
    seen = [
        (trial.cell.workers, measured.loader)
        for trial in search.trials
        if (measured := trial.result.measurement) is not None and measured.loader is not None
    ]
    asked = [(workers, facts.workers) for workers, facts in seen if workers]
    if asked and not any(has for _, has in asked):
        workers, has = asked[-1]
        why = "no DataLoader was seen in it" if has is None else "its DataLoader has none"
        return f"it ignores `workers`: asked for {workers}, {why}"
    if not asked and seen and all(facts.workers is None for _, facts in seen):
        return (
            "ctrkit saw no DataLoader in it whose workers could read ahead: read through one, with "
            "num_workers=workers"
        )
    return ""


def _differs_in_workers(cell: Cell, other: Cell) -> bool:
    """Whether two cells compute the same on the same device with different numbers of workers."""
    same = ("device", "loader", "batch_size", "numerics")
    is_like = all(getattr(cell, axis) == getattr(other, axis) for axis in same)
    return is_like and cell.workers != other.workers
