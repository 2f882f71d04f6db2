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
# Sent by a person, a scheduler or the kernel: nothing that the cell did.
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
    """What may help after this end of a run that was neither finished nor stopped by its user.

    Args:
        outcome: how the child ended.
        cell: where it ran.

    A hang, or the death of a worker, is answered with a loader that has no processes; a signal from
    outside means nothing but to try again. What the workload's own code raised would come again.
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
    """The cell without worker processes to go on in; the same where the workload has none.

    Device, batch size and number of processes stay: only the loader's machinery changes.

    Args:
        cell: where it ran.
        tied: cells that the probe could not tell from it, the best first; they come first.
        loaders: those of the workload.
        axes: those that the workload takes.
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
