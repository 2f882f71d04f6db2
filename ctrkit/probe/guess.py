"""A first guess at cells with workers, from a whole launch of a cell without workers.

It only decides which cell is run next, if the budget has no room for ceilings. As soon as one cell
with workers has run, that one counts for the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ctrkit.core.config import Cell
from ctrkit.measure.steps import data_wait_share
from ctrkit.probe.finalists import TIE
from ctrkit.probe.trials import Trial, compute_key


def guessed_step(wait_share: float, workers: int, cores: int, *, shares_cores: bool) -> float:
    """The time of a step with workers, as a share of a step without.

    Args:
        wait_share: the share of the step without workers that makes its batch.
        workers: number of workers that make batches ahead.
        cores: cores for workers, and for the step if `shares_cores`.
        shares_cores: whether the step also runs on the CPU.
    """
    at_best = max(1 - wait_share, wait_share / max(1, min(workers, cores)))
    return max(at_best, 1 / cores) if shares_cores else at_best


def guessed_objectives(
    cells: Sequence[Cell],
    measured: Mapping[Cell, float],
    trials: Sequence[Trial],
    cores: int,
) -> dict[Cell, float]:
    """Guessed objectives of cells with workers, in the unit of `measured` (less is better).

    Infinite if workers can gain nothing.

    Args:
        cells: the cells to guess; cells without workers are left out.
        measured: objectives of the cells that were run.
        trials: all launches so far.
        cores: cores of the machine.
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
                gains = ratio < 1 - TIE
                found[cell] = measured[plain] * ratio if gains else math.inf
    return found


def _wait_share(cell: Cell, trials: Sequence[Trial]) -> float | None:
    """Mean share of a step that waits for its batch, over the cell's whole launches."""
    shares = [
        share
        for t in trials
        if t.request.kind == "full" and t.cell == cell and t.usable and t.result.measurement
        if (share := data_wait_share(t.result.measurement)) is not None
    ]
    return sum(shares) / len(shares) if shares else None
