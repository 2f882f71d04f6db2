"""The order in which cells are tried: simple ones that take little memory come first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ctrkit.core.config import Cell
from ctrkit.probe.trials import loader_key

_LOADER_ORDER = ("custom", "script", "thread", "batches", "resident", "rows")
_START_ORDER = (None, "spawn", "forkserver", "fork")


def anchors(cells: Sequence[Cell], cores: int) -> list[Cell]:
    """The cells whose loaders are measured alone; the others are predicted from these.

    Per loader and batch size, in this order: without workers, with the most, and with about one
    less than the cores. `cells` come simplest first.
    """
    families: dict[object, list[Cell]] = {}
    for cell in cells:
        # where pinned memory is only a copy more, one value of it stands for the other
        own = loader_key(replace(cell, pin=False))
        families.setdefault((own[0], own[3], own[4]), []).append(cell)
    rounds: list[list[Cell]] = [[], [], []]
    for family in families.values():
        by_workers = {c.workers: c for c in reversed(family)}
        most = max(by_workers)
        about = min(by_workers, key=lambda w: (abs(w - max(1, cores - 1)), w))
        for place, workers in enumerate((0, most, about)):
            if workers in by_workers:
                rounds[place].append(by_workers[workers])
    return list(dict.fromkeys(cell for turn in rounds for cell in turn))


def simplest(cell: Cell) -> tuple[object, ...]:
    """Sort key for cells: those in which less can go wrong come first (no workers, then spawn)."""
    known = _LOADER_ORDER.index(cell.loader) if cell.loader in _LOADER_ORDER else 9
    return (cell.workers, known, _START_ORDER.index(cell.start_method), cell.cell_id)
