"""Decides which cell is run next: a rival that may win, or a finalist once more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ctrkit.core.config import Cell

#: Number of cells that are really run, and of launches of each, before time is spent elsewhere.
MOST_FINALISTS = 3
MOST_LAUNCHES = 3
#: Two cells are tied if their ratio is within this of 1.
TIE = 0.02
#: A rival predicted to be this much faster is run before the leader runs again.
_CLEARLY_FASTER = 0.98


Relation = Literal["different", "tied", "undecided"]


def relation(ratio: float, relative_half: float) -> Relation:
    """What the interval of the ratio of two cells says about them.

    They differ if it excludes the tie band around 1, and are tied if it lies inside. The interval
    is that of the logarithm: even with much noise, a cell with a thousandth of the time is not
    tied.
    """
    low, high = ratio * math.exp(-relative_half), ratio * math.exp(relative_half)
    if low > 1 + TIE or high < 1 - TIE:
        return "different"
    return "tied" if low >= 1 - TIE and high <= 1 + TIE else "undecided"


@dataclass(frozen=True, kw_only=True)
class CellStanding:
    """A cell in the search: its objective (less is better), measured and predicted.

    Attributes:
        relative_half: uncertainty of the measured objective, as a share.
        launches: number of its full trials.
        last: index of the latest of them; -1 without any.
    """

    cell: Cell
    measured: float | None
    predicted: float | None
    relative_half: float = 0.0
    launches: int = 0
    last: int = -1


def next_finalists(standings: Sequence[CellStanding]) -> list[Cell]:
    """The cells to run next, the best choice first; empty if more runs would not change the answer.

    A rival that may be the best is run. The leader, and cells not yet distinguished from it, are
    run again. Cells of which nothing is predicted come last, while few cells were run. The caller
    launches the first cell that fits into the time left. `standings` come simplest first; among
    predictions within the tie band, that order decides.
    """
    measured = sorted((s for s in standings if s.measured is not None), key=_measured)
    waiting = by_prediction([s for s in standings if not s.launches])
    if not measured:
        return [s.cell for s in waiting]
    leader = measured[0]
    best = _measured(leader)
    rivals = [s for s in waiting if s.predicted is not None and s.predicted <= best * (1 + TIE)]
    rivals = unlike_first(rivals, measured) if len(measured) < MOST_FINALISTS else []
    if not any(_predicted(s) < best * _CLEARLY_FASTER for s in rivals):
        rivals.sort(key=lambda s: not _is_pinned_twin(s.cell, leader.cell))
    undecided = [s for s in measured[1:] if _relation(s, leader) == "undecided"]
    again = again_in_turn([leader, *undecided[: MOST_FINALISTS - 1]]) if undecided else []
    first_rival = len(measured) == 1 or any(
        s.predicted is not None and s.predicted < best * _CLEARLY_FASTER for s in rivals
    )
    ordered = [*rivals, *again] if first_rival else [*again, *rivals]
    if len(measured) < MOST_FINALISTS:
        ordered += [s for s in waiting if s.predicted is None]
    return [s.cell for s in ordered]


def _is_pinned_twin(cell: Cell, leader: Cell) -> bool:
    """Whether they differ only in pinned memory, whose effect on copies is not predicted."""
    return cell.pin != leader.pin and replace(cell, pin=leader.pin) == leader


def _relation(one: CellStanding, leader: CellStanding) -> Relation:
    ratio = _measured(one) / _measured(leader) if _measured(leader) > 0 else 1.0
    return relation(ratio, math.hypot(one.relative_half, leader.relative_half))


def by_prediction(standings: Sequence[CellStanding]) -> list[CellStanding]:
    """Best predictions first, unpredicted cells last; ties keep their order."""
    known = [s for s in standings if s.predicted is not None]
    unknown = [s for s in standings if s.predicted is None]
    ordered: list[CellStanding] = []
    while known:
        best = min(_predicted(s) for s in known)
        tied = [s for s in known if _predicted(s) <= best * (1 + TIE)]
        ordered += tied
        known = [s for s in known if s not in tied]
    return ordered + unknown


def unlike_first(
    rivals: Sequence[CellStanding], measured: Sequence[CellStanding]
) -> list[CellStanding]:
    """Among rivals that tie with the best one, the least like the measured worker counts first.

    Measurements correct all predictions alike, so most is learned where that may hold least. A twin
    of a cell that was run (with another prefetch, say) comes last.
    """
    if not rivals:
        return []
    best = min(_predicted(s) for s in rivals)

    def unlike(rival: CellStanding) -> float:
        near = [
            abs(s.cell.workers - rival.cell.workers)
            for s in measured
            if (s.cell.device, s.cell.loader) == (rival.cell.device, rival.cell.loader)
        ]
        return min(near, default=math.inf)

    tied = [s for s in rivals if _predicted(s) <= best * (1 + TIE)]
    return sorted(tied, key=unlike, reverse=True) + [s for s in rivals if s not in tied]


def again_in_turn(finalists: Sequence[CellStanding]) -> list[CellStanding]:
    """Cells with fewest launches first, then the one launched last: A B, then B A, and so on.

    So a drift of the machine affects both alike.
    """
    waiting = [s for s in finalists if s.launches < MOST_LAUNCHES]
    return sorted(waiting, key=lambda s: (s.launches, -s.last))


def _measured(standing: CellStanding) -> float:
    assert standing.measured is not None
    return standing.measured


def _predicted(standing: CellStanding) -> float:
    assert standing.predicted is not None
    return standing.predicted
