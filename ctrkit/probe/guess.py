"""A first guess at cells with workers, from a launch as a whole of a cell without any.

It only decides which cell is really run next, where a budget has no room for ceilings. As soon as
one cell with workers was run, that one speaks for the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ctrkit.core.config import Cell
from ctrkit.measure.steps import data_wait_share
from ctrkit.probe.finalists import TIE
from ctrkit.probe.trials import Trial, compute_key


def guessed_step(wait_share: float, workers: int, cores: int, *, shares_cores: bool) -> float:
    """A step with workers, as a share of one without.

    Args:
        wait_share: how much of the step without workers is the making of its batch.
        workers: that make batches ahead.
        cores: for workers, and for the step where `shares_cores`.
        shares_cores: the step runs on the CPU, too.
    """
    at_best = max(1 - wait_share, wait_share / max(1, min(workers, cores)))
    return max(at_best, 1 / cores) if shares_cores else at_best


def guessed_objectives(
    cells: Sequence[Cell],
    measured: Mapping[Cell, float],
    trials: Sequence[Trial],
    cores: int,
) -> dict[Cell, float]:
    """What cells with workers may come to, in the unit of `measured` (less is better).

    Args:
        cells: those to guess; cells without workers are left out.
        measured: of the cells that were run as a whole.
        trials: all launches so far.
        cores: of the machine.
    """
    with_workers = {(c.loader, compute_key(c)) for c in measured if c.workers}
    found: dict[Cell, float] = {}
    for plain in (c for c in measured if not c.workers):
        like = (plain.loader, compute_key(plain))
        share = _wait_share(plain, trials)
        if share is None or like in with_workers:
            continue
        for cell in cells:
            if cell.workers and (cell.loader, compute_key(cell)) == like:
                on_cpu = cell.device == "cpu"
                ratio = guessed_step(share, cell.workers, cores, shares_cores=on_cpu)
                if ratio < 1 - TIE:  # else there is nothing to gain
                    found[cell] = measured[plain] * ratio
    return found


def _wait_share(cell: Cell, trials: Sequence[Trial]) -> float | None:
    """Of the cell's launches as a whole: the mean share of a step that waits for its batch."""
    shares = [
        share
        for t in trials
        if t.request.kind == "full" and t.cell == cell and t.usable and t.result.measurement
        if (share := data_wait_share(t.result.measurement)) is not None
    ]
    return sum(shares) / len(shares) if shares else None
