"""Whether threads, workers and cores fit together: too many, too few, or idle cores."""

from __future__ import annotations

from collections.abc import Sequence

from ctrkit.core.cell import WITHOUT_WORKERS
from ctrkit.core.child_records import Measurement
from ctrkit.core.config import Cell
from ctrkit.core.records import Finding
from ctrkit.measure.leeway import ANYTHING, Leeway
from ctrkit.measure.steps import cpu_per_step_s, data_wait_share, mean_step_s
from ctrkit.measure.storage import reading_of, wait_cause

#: The step is the limit if at most this share of it waits for data.
_COMPUTING = 0.2
#: The cores are full from this share of use on; so many idle cores matter.
_FULL_SHARE, _IDLE_CORES = 0.9, 0.75
#: The loader is the limit if a step waits for this share; the loader itself waits (for a disk or a
#: network) if it uses at most this share of its cores.
_WAITING, _MOSTLY_IDLE = 0.5, 0.5


def core_findings(cell: Cell, launches: Sequence[Measurement], cores: int) -> list[Finding]:
    """At most one finding on a cell that was really run, only for device `cpu`.

    Args:
        cell: the configuration.
        launches: its launches.
        cores: physical cores that it may use.
    """
    used = used_cores(launches)
    if cell.device != "cpu":
        return []
    waits = [share for share in map(data_wait_share, launches) if share is not None]
    computes = bool(waits) and sum(waits) / len(waits) <= _COMPUTING
    threads, workers = cell.threads * cell.nproc, cell.workers * cell.nproc
    share = max(1, cores // cell.nproc)
    if threads > cores:
        text = f"{threads} threads share {cores} cores: --threads {share} is enough"
        return [_finding(text, "high")]
    crowd = threads + workers
    if workers and crowd > cores and used is not None and used >= _FULL_SHARE * cores:
        text = (
            f"the {cores} cores are full: {threads} threads of the step and {workers} "
            "workers share them, so more of either slows down the other"
        )
        return [_finding(text, "medium")]
    if computes and threads < cores and used is not None and cores - used >= _IDLE_CORES:
        text = (
            f"{cores - used:.1f} of {cores} cores are idle while the step computes with "
            f"{threads} thread{'s' if threads > 1 else ''}: --threads {share} may be "
            "faster; ctrkit did not measure by how much"
        )
        return [_finding(text, "medium")]
    return []


def waiting_finding(
    cell: Cell, launches: Sequence[Measurement], cores: int, leeway: Leeway = ANYTHING
) -> Finding | None:
    """A finding that the loop waits for a loader that waits itself: for what, and what may help.

    It suggests workers beyond the cores, unless something speaks against them: cells with more
    workers failed or are no faster, or workers repeat rows. If other processes use the cores, the
    loader looks as idle as with a slow disk; then only a disk that was seen to be the cause is
    named.

    Args:
        cell: the configuration; None is returned if its loader has no workers.
        launches: its launches.
        cores: physical cores that it may use.
        leeway: what is known about other configurations.
    """
    used = used_cores(launches)
    waits = [share for share in map(data_wait_share, launches) if share is not None]
    if cell.loader in WITHOUT_WORKERS or not waits or used is None:
        return None
    if sum(waits) / len(waits) < _WAITING or not waits_itself(cell, launches, cores):
        return None
    reading = reading_of(launches)
    cause = wait_cause(reading)
    others, is_sure = leeway.other_cores, True
    if not cause.is_known:
        if others is not None and others >= _IDLE_CORES:
            return None
        is_sure = others is not None
    text = (
        f"the loop waits for data while {used:.1f} of {cores} cores are busy: the loader waits "
        f"itself, {cause.words}."
    )
    if leeway.may_gain_by_workers(cell):
        more = cell.workers or cores
        which = "workers beyond the cores help" if 2 * more > cores else "more workers help"
        text += " " + (
            which.capitalize() if cause.is_known else f"Unless all workers share a lock, {which}"
        )
        text += f": --workers {cell.workers},{2 * more},{4 * more} would tell."
    elif reading is None:
        return None
    if cause.advice:
        text += f" What helps: {cause.advice}."
    if not is_sure:
        text += (
            " How many cores other processes used is unknown, since a trial failed: if they used "
            "most of them, the loader only waited for a core."
        )
    return Finding(
        stage="workers", share=None, worth_x=None, text=text.removesuffix("."),
        confidence="medium" if is_sure else "low",
    )  # fmt: skip


def waits_itself(cell: Cell, launches: Sequence[Measurement], cores: int) -> bool:
    """Whether whatever makes the batches is mostly idle: a loader alone, or one that limits."""
    used = used_cores(launches)
    making = min(cores, max(1, cell.workers * cell.nproc))
    return used is not None and used <= _MOSTLY_IDLE * making


def used_cores(launches: Sequence[Measurement]) -> float | None:
    """Mean number of cores that the loop and its workers used; None if unknown."""
    found = []
    for measurement in launches:
        cpu_s, step_s = cpu_per_step_s(measurement), mean_step_s(measurement)
        if cpu_s is not None and step_s:
            found.append(cpu_s / step_s)
    return sum(found) / len(found) if found else None


def _finding(text: str, confidence: str) -> Finding:
    return Finding(stage="threads", share=None, worth_x=None, text=text, confidence=confidence)
