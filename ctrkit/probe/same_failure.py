"""Finds a failure that no cell can avoid: two very different cells failed in the same way.

With a missing file, a loader that is none, or a wrong import, a trial per cell would only repeat
the same message.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ctrkit.core.cell import AXES
from ctrkit.core.config import Cell
from ctrkit.core.units import format_count
from ctrkit.probe.trials import Trial

#: first words of the reason of a cell that was not tried for this reason
NOT_TRIED = "not tried: it would fail as the others did"
_VERDICTS = ("setup-failed", "crashed")
#: stages in which a failure says nothing about the cell's pace or size
_STAGES = ("import", "data", "model", "first batch")
#: the process that raised it; the failure is the same in the main process and in a worker
_WHO = re.compile(r"^(?:the main process|(?:worker|rank) \d+(?: \([^)]*\))?) raised: ")
_CHANGING = re.compile(r" \(in stage '[^']*'\)|\bpid \d+|0x[0-9a-f]+")
#: an end of the main process other than by a signal
_ENDED = re.compile(r"^it ended (with exit code|without a complete result)")


@dataclass(frozen=True, kw_only=True)
class SameFailure:
    """A failure of every cell that was tried.

    Args:
        reason: the failure, in one line.
        tried: ids of the tried cells.
        left: number of cells that were not tried.
        is_misuse: bad input, and no fault of the machine.
    """

    reason: str
    tried: tuple[str, ...]
    left: int
    is_misuse: bool = False

    @property
    def words(self) -> str:
        """The failure in one line for all cells."""
        if not self.left:
            return f"{self.reason} (in every configuration)"
        others = "the other configuration was" if self.left == 1 else (
            f"the other {format_count(self.left)} configurations were")  # fmt: skip
        return f"{self.reason} (the same in {' and '.join(self.tried)}; {others} not tried)"


def cell_to_ask(trial: Trial, trials: Sequence[Trial], cells: Sequence[Cell]) -> Cell | None:
    """After a first failure, the cell that differs most from the one that failed.

    None if there is no other cell, if another trial succeeded, or if the failure may depend on the
    cell.
    """
    if len(trials) > 1 or _alike(trial) is None:
        return None
    others = [cell for cell in cells if cell != trial.cell]
    return max(others, key=lambda cell: _differences(cell, trial.cell), default=None)


def same_failure(trials: Sequence[Trial], cells: Sequence[Cell]) -> SameFailure | None:
    """The failure of the first two trials, if it is the same; else None."""
    found = [_alike(trial) for trial in trials[:2]]
    if len(found) < 2 or found[0] is None or found[0] != found[1]:
        return None
    first, second = trials[:2]
    tried = tuple(dict.fromkeys((first.cell.name, second.cell.name)))
    left = sum(cell not in (first.cell, second.cell) for cell in cells)
    reason = _CHANGING.sub("", first.result.reason)
    return SameFailure(
        reason=reason, tried=tried, left=left,
        is_misuse=first.result.misused and second.result.misused,
    )  # fmt: skip


def only_failure(trials: Sequence[Trial], cells: Sequence[Cell]) -> SameFailure | None:
    """The failure of a matrix with one cell, if it is bad input."""
    failed = [trial for trial in trials if trial.failed]
    if len(cells) != 1 or not failed or not failed[0].result.misused:
        return None
    reason = _CHANGING.sub("", failed[0].result.reason)
    return SameFailure(reason=reason, tried=(cells[0].name,), left=0, is_misuse=True)


def _alike(trial: Trial) -> str | None:
    """The text that two failures must share; None if the cell may be the cause."""
    result = trial.result
    if not trial.failed or result.verdict not in _VERDICTS or result.stage not in _STAGES:
        return None
    if not result.misused and " raised: " not in result.reason and not _ENDED.match(result.reason):
        return None
    return _CHANGING.sub("", _WHO.sub("", result.reason))


def _differences(cell: Cell, other: Cell) -> int:
    return sum(getattr(cell, name) != getattr(other, name) for name in AXES)
