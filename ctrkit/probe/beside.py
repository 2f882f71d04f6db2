"""Launches that measure what a script does besides training: validation and checkpoints.

A probe varies a script's training loader, while its validation stays as written. So all its cells
share these times, also cells that were only predicted, or whose trials were cut short.
"""

from __future__ import annotations

from collections.abc import Sequence

from ctrkit.core.child_records import Measurement
from ctrkit.core.config import Cell
from ctrkit.probe.trials import Trial, compute_key

#: Loaders of a script's cells.
_OF_SCRIPTS = ("script", "none")


def launches_beside(cell: Cell, trials: Sequence[Trial]) -> list[Measurement]:
    """Launches of a script whose validation and checkpoints are also this cell's.

    Those of the script as written come first; it is launched before all others. Empty for a
    workload, which validates with its cell's loader.
    """
    if cell.loader not in _OF_SCRIPTS:
        return []
    like = [
        t
        for t in trials
        if t.request.kind == "full" and t.usable and compute_key(t.cell) == compute_key(cell)
    ]
    if not like:
        return []
    own = next((t for t in like if t.cell == cell and _others(t)), like[0])
    same = [t for t in like if _agree(_others(t), _others(own))]
    same.sort(key=lambda t: not t.ok)
    return [t.result.measurement for t in same if t.result.measurement is not None]


def _others(trial: Trial) -> dict[int, tuple[object, ...]]:
    """By number, how the loaders other than the training loader were made, as far as seen.

    A placeholder of the command may vary these, too.
    """
    seen = trial.result.seen
    if seen is None:
        return {}
    return {
        one.number: (one.workers, one.start_method, one.prefetch, one.persistent, one.batch_size)
        for one in seen.loaders
        if one.number != seen.train_loader
    }


def _agree(one: dict[int, tuple[object, ...]], other: dict[int, tuple[object, ...]]) -> bool:
    """Whether all loaders that both saw were made in the same way."""
    return all(one[number] == other[number] for number in one.keys() & other.keys())
