"""Decides whether a real run that was ended should restart, and in which cell."""

from __future__ import annotations

import dataclasses
import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from ctrkit.core.config import Cell
from ctrkit.supervise.supervisor import Outcome

HANGS_AND_DEATHS = ("deadlock", "stalled", "worker-died", "shutdown-hang")
# Signals from a person, a scheduler or the kernel: not caused by the cell.
_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
_OF_A_DEVICE = re.compile(r"CUDA|HIP|MPS|XPU|cuda|_STATUS_ALLOC_FAILED")


class Remedy(Enum):
    """What may help a run that was ended."""

    NONE = "none"
    SAME_CELL = "the same configuration again"
    SAFER_CELL = "a configuration without worker processes"


@dataclass(frozen=True)
class Advice:
    """The remedy, and a clause that says why."""

    remedy: Remedy
    why: str


def advise(outcome: Outcome, cell: Cell) -> Advice:
    """What may help a run that ended without finishing, and not by its user's wish.

    After a hang or a worker's death, the advice is a loader without processes. After a signal from
    outside, it is to try again. An error of the workload's own code would happen again.

    Args:
        outcome: how the child ended.
        cell: where it ran.
    """
    verdict, code, error = outcome.verdict, outcome.exit_code, outcome.error
    if error is not None and any(dead.kind == "rank" for dead in error.dead_workers):
        return Advice(Remedy.SAME_CELL, "all ranks continue from the last checkpoint")
    if verdict in HANGS_AND_DEATHS:
        return _safer(cell)
    if verdict == "out-of-memory":
        if error is not None and _OF_A_DEVICE.search(error.message):
            return Advice(Remedy.NONE, "the device would be too small again")
        if cell.workers:
            return Advice(Remedy.SAFER_CELL, "without worker processes it needs less memory")
        if code == -signal.SIGKILL:
            return Advice(Remedy.SAME_CELL, "others may have taken the memory")
        return Advice(Remedy.NONE, "it would need as much memory again")
    if verdict == "crashed" and error is None and code is not None and code < 0:
        if -code in _FROM_OUTSIDE:
            return Advice(Remedy.SAME_CELL, "the signal came from outside")
        return _safer(cell)
    return Advice(Remedy.NONE, "it would happen again")


def _safer(cell: Cell) -> Advice:
    if cell.workers:
        return Advice(
            Remedy.SAFER_CELL, "a loader without worker processes cannot hang or die like that"
        )
    return Advice(Remedy.SAME_CELL, "there is no safer configuration")


def safest_cell(
    cell: Cell, *, tied: Sequence[Cell], loaders: Sequence[str], axes: Sequence[str]
) -> Cell:
    """The cell without worker processes to continue in; the same cell if there is none.

    Device, batch size and number of processes stay: only the way of loading changes.

    Args:
        cell: where it ran.
        tied: cells that the probe could not distinguish from it, the best first; preferred.
        loaders: the workload's loaders.
        axes: the axes that the workload heeds.
    """
    if not cell.workers or "workers" not in axes:
        return cell
    for other in tied:
        kept = (other.device, other.batch_size, other.nproc)
        is_alike = kept == (cell.device, cell.batch_size, cell.nproc)
        if is_alike and not other.workers and other.loader in loaders:
            return other
    loader = "thread" if "loader" in axes and "thread" in loaders else cell.loader
    return dataclasses.replace(cell.without_workers, loader=loader)
