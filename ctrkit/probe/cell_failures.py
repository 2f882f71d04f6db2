"""Which cells have failed, by themselves or by what they share with others."""

from __future__ import annotations

from collections.abc import Sequence

from ctrkit.core.config import Cell
from ctrkit.core.progress import Stage
from ctrkit.probe.memory_needs import LATER_STAGES
from ctrkit.probe.trials import Trial, compute_key, loader_key


def failure_of(cell: Cell, trials: Sequence[Trial]) -> str | None:
    """How this cell, or a part that it shares with others, has failed; None if it has not.

    A trial that the budget cut has not failed, and one that failed elsewhere says nothing about
    cells.
    """
    for trial in trials:
        kind, result = trial.request.kind, trial.result
        if not trial.failed or trial.failed_elsewhere:
            continue
        if kind == "full" and trial.cell == cell:
            return f"{result.verdict}: {result.reason}"
        if kind == "compute" and compute_key(trial.cell) == compute_key(cell):
            return f"its training step, run alone, failed ({result.verdict}): {result.reason}"
        if kind == "loader" and loader_key(trial.cell) == loader_key(cell):
            return f"its loader, run alone, failed ({result.verdict}): {result.reason}"
    return None


def failed_with_fewer(cell: Cell, trials: Sequence[Trial]) -> Trial | None:
    """A failed launch with at most as many workers, where no launch with so many has worked.

    They share the loader, how it starts workers, and the step: what kept some workers from working
    (memory, /dev/shm, a lock) keeps more of them from it, too.
    """
    like = [
        t for t in trials
        if t.request.kind in ("full", "loader") and t.cell.workers > 0
        and _way_of_workers(t.cell) == _way_of_workers(cell)
    ]  # fmt: skip
    worked = max((t.cell.workers for t in like if t.usable), default=0)
    failed = [t for t in like if t.failed and not t.failed_elsewhere]
    return next((t for t in failed if t.cell.workers > worked and _tells_of(t, cell)), None)


def _way_of_workers(cell: Cell) -> tuple[object, ...]:
    return cell.loader, cell.start_method, compute_key(cell)


def _tells_of(failed: Trial, cell: Cell) -> bool:
    """Whether a failure speaks against a cell: not if that keeps less in memory.

    Workers that ran out of memory while stepping had rows piled up, which more workers share. What
    fails between two epochs may come from workers that are kept for the next one.
    """
    own, stage = failed.cell, failed.result.stage
    if (own.prefetch or 0) > (cell.prefetch or 0):
        return False
    if stage == Stage.EPOCH_BOUNDARY.label and own.persistent != cell.persistent:
        return False
    if failed.result.verdict == "out-of-memory" and stage in LATER_STAGES:
        return own.workers == cell.workers
    return own.workers <= cell.workers


def failure_words(cell: Cell, trials: Sequence[Trial]) -> str:
    """How a cell has failed, or with how many workers less it did; empty if neither."""
    if failure := failure_of(cell, trials):
        return failure
    trial = failed_with_fewer(cell, trials)
    if trial is None:
        return ""
    count, result = trial.cell.workers, trial.result
    plural = "s" if count > 1 else ""
    return f"not tried: with {count} worker{plural} it failed ({result.verdict}: {result.reason})"
