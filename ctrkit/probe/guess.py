"""A first guess at cells that were not run, from a whole launch of a cell that was.

It only decides which cell is run next, if the budget has no room for ceilings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ctrkit.core.config import Cell
from ctrkit.measure.cores import waits_itself
from ctrkit.measure.steps import data_wait_share
from ctrkit.probe.finalists import TIE
from ctrkit.probe.trials import Trial, compute_key

#: Workers that are waited for less than this share are not the limit: more of them gain nothing
#: that a few launches could show, and how long they take for a batch is unknown.
_LIMITING = 0.05


@dataclass(frozen=True, kw_only=True)
class Guess:
    """What a whole launch says about other numbers of workers.

    Attributes:
        workers: number of workers of the cell that was run.
        wait_share: the share of its step that waits for a batch.
        cores: cores for workers, and for the step if `shares_cores`; infinite if the workers
            mostly wait themselves, for a disk or a network.
        shares_cores: whether the step also runs on the CPU.
    """

    workers: int
    wait_share: float
    cores: float
    shares_cores: bool

    def step(self, workers: int) -> float | None:
        """A step with so many workers, as a share of the step that was run; None if unknown.

        Workers that are waited for make a batch each in as many steps as there are workers; more of
        them than cores share the cores.
        """
        if self.workers and self.wait_share < _LIMITING:
            return None if workers < self.workers else 1.0
        computing = 1 - self.wait_share
        making = min(self.workers, self.cores) if self.workers else self.wait_share
        if not workers:
            return computing + making
        at_best = max(computing, making / max(1.0, min(workers, self.cores)))
        shared = min(computing + making, self.cores) / self.cores if self.shares_cores else 0.0
        return max(at_best, shared)


def guessed_objectives(
    cells: Sequence[Cell],
    measured: Mapping[Cell, float],
    trials: Sequence[Trial],
    cores: int,
) -> dict[Cell, float]:
    """Guessed objectives of cells that were not run, in the unit of `measured` (less is better).

    Each is guessed from the cell with the nearest number of workers, of the same loader and step.
    Infinite if more workers can gain nothing. Cells with as many workers as one that was run are
    left out.

    Args:
        cells: the cells to guess.
        measured: objectives of the cells that were run.
        trials: all launches so far.
        cores: cores of the machine.
    """
    found: dict[Cell, float] = {}
    guesses = {cell: _guess_of(cell, trials, cores) for cell in measured}
    for cell in cells:
        like = [
            other
            for other, guess in guesses.items()
            if guess is not None
            and (other.loader, compute_key(other)) == (cell.loader, compute_key(cell))
        ]
        if not like or any(other.workers == cell.workers for other in like):
            continue
        nearest = min(
            like, key=lambda o: (abs(o.workers - cell.workers), not o.workers, measured[o])
        )
        guess = guesses[nearest]
        assert guess is not None
        share = guess.step(cell.workers)
        if share is None:
            continue
        gains = share < 1 - TIE or cell.workers < nearest.workers
        found[cell] = measured[nearest] * share if gains else math.inf
    return found


def _guess_of(cell: Cell, trials: Sequence[Trial], cores: int) -> Guess | None:
    """What the cell's whole launches say; None if its share of waiting is unknown."""
    launches = [
        t.result.measurement
        for t in trials
        if t.request.kind == "full" and t.cell == cell and t.usable and t.result.measurement
    ]
    shares = [share for share in map(data_wait_share, launches) if share is not None]
    if not shares:
        return None
    waits = waits_itself(cell, launches, cores)
    return Guess(
        workers=cell.workers,
        wait_share=sum(shares) / len(shares),
        cores=math.inf if waits else max(1.0, cores / cell.nproc),
        shares_cores=cell.device == "cpu" and not waits,
    )
