"""Compares cells with other numerics with the phase's own, by time and loss; never prefers one."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from ctrkit.core.config import NUMERICS, Cell
from ctrkit.core.records import Option
from ctrkit.probe.candidates import Candidate
from ctrkit.probe.cell_results import full_launches
from ctrkit.probe.trials import Trial

T = TypeVar("T")

#: fewer steps say nothing about a loss
_LEAST_STEPS = 3


def comparable(items: Sequence[T], cell_of: Callable[[T], Cell]) -> list[T]:
    """The items whose cells compute what the phase says; all items if none does."""
    own = [item for item in items if not cell_of(item).numerics]
    return own or list(items)


def plain(cell: Cell) -> Cell:
    """The same cell with the phase's own numerics."""
    return replace(cell, **NUMERICS)


def variants_of(cell: Cell, cells: Sequence[Cell]) -> list[Cell]:
    """The cells that differ from `cell` only in their numerics."""
    return [other for other in cells if other.numerics and plain(other) == plain(cell)]


def numerics_options(
    chosen: Candidate, candidates: Sequence[Candidate], trials: Sequence[Trial]
) -> list[Option]:
    """Options for cells with other numerics that were run: speed and loss beside the plain cell.

    The plain one is the otherwise equal cell, or else the chosen one with the same batch size: all
    have the same order of rows and first parameters.
    """
    by_cell = {candidate.cell: candidate for candidate in candidates}
    options = []
    for candidate in candidates:
        base = by_cell.get(plain(candidate.cell), chosen)
        if not candidate.cell.numerics or base.cell.batch_size != candidate.cell.batch_size:
            continue
        if base.cell.numerics:
            continue
        how = ", ".join(
            f"--{axis.replace('_', '-')} {str(value).lower()}"
            for axis, value in candidate.cell.numerics.items()
        )
        speed = base.objective / candidate.objective
        spread = math.exp(math.hypot(base.relative_half, candidate.relative_half))
        words = (
            f"{how} (other numerics): {speed:.2f}x ({speed / spread:.2f} .. {speed * spread:.2f}) "
            f"the speed of {base.cell.name}; "
            f"{_loss_words(candidate.cell, base.cell, trials)}"
        )
        run = candidate.projection.run if candidate.projection else None
        total_s = run.mean if run is not None else None
        options.append(Option(text=words, projected_total_s=total_s))
    return options


def _loss_words(cell: Cell, base: Cell, trials: Sequence[Trial]) -> str:
    """The training losses of both after the same number of steps."""
    ours, theirs = _losses(cell, trials), _losses(base, trials)
    steps = min(len(ours), len(theirs))
    if steps < _LEAST_STEPS:
        return "its effect on the loss was not measured"
    broken = [i for i, loss in enumerate(ours[:steps], start=1) if loss is None]
    if broken:
        return f"its training loss is not a finite number from step {broken[0]} on"
    mine = statistics.fmean(loss for loss in ours[:steps] if loss is not None)
    known = [loss for loss in theirs[:steps] if loss is not None]
    if len(known) < steps:
        return "the loss of the cell that it is compared with is not a finite number"
    other = statistics.fmean(known)
    return (
        f"mean training loss of the first {steps} steps {mine:.4f} against {other:.4f} "
        f"({(mine / other - 1) * 100:+.2f} %); that says little about convergence"
    )


def _losses(cell: Cell, trials: Sequence[Trial]) -> list[float | None]:
    """The losses of its longest launch from the epoch's beginning, where all cells agree."""
    launches = [m for m in full_launches(cell, trials) if not m.first_batch]
    return max((m.losses for m in launches), key=len, default=[])
