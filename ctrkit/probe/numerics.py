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

#: fewer steps than this say nothing about a loss
_LEAST_STEPS = 3


def comparable(items: Sequence[T], cell_of: Callable[[T], Cell]) -> list[T]:
    """Those that compute what the phase says; all, where none does."""
    own = [item for item in items if not cell_of(item).numerics]
    return own or list(items)


def plain(cell: Cell) -> Cell:
    """The same cell with the phase's own numerics."""
    return replace(cell, **NUMERICS)


def variants_of(cell: Cell, cells: Sequence[Cell]) -> list[Cell]:
    """Of these cells those that differ from `cell` by their numerics only."""
    return [other for other in cells if other.numerics and plain(other) == plain(cell)]


def numerics_options(
    chosen: Candidate, candidates: Sequence[Candidate], trials: Sequence[Trial]
) -> list[Option]:
    """Each cell of other numerics that was run, its speed and its loss beside the plain one's.

    The plain one is the same cell otherwise, or else the chosen one of the same batch size: the
    order of the rows and the first parameters are the same for all.
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
    """The training losses of both after as many steps as both have made."""
    ours, theirs = _losses(cell, trials), _losses(base, trials)
    steps = min(len(ours), len(theirs))
    if steps < _LEAST_STEPS:
        return "its effect on the loss was not measured"
    broken = [i for i, loss in enumerate(ours[:steps], start=1) if loss is None]
    if broken:
        return f"its training loss is no finite number from step {broken[0]} on"
    mine = statistics.fmean(loss for loss in ours[:steps] if loss is not None)
    known = [loss for loss in theirs[:steps] if loss is not None]
    if len(known) < steps:
        return "the loss of the cell it is compared with is no finite number"
    other = statistics.fmean(known)
    return (
        f"mean training loss of the first {steps} steps {mine:.4f} against {other:.4f} "
        f"({(mine / other - 1) * 100:+.2f} %); that says little about convergence"
    )


def _losses(cell: Cell, trials: Sequence[Trial]) -> list[float | None]:
    """Of its longest launch that began with the epoch: the same batches in every cell."""
    launches = [m for m in full_launches(cell, trials) if not m.first_batch]
    return max((m.losses for m in launches), key=len, default=[])
