"""Finds workers that keep their cores busy, by computing or with threads of a library."""

from __future__ import annotations

from collections.abc import Sequence

from ctrkit.core.child_records import Measurement
from ctrkit.core.config import Cell
from ctrkit.core.records import Finding
from ctrkit.core.units import format_bytes, format_percent
from ctrkit.measure.steps import data_wait_share
from ctrkit.measure.storage import reading_of

#: A worker that uses this many cores runs more threads than its own.
_MORE_THAN_ONE = 1.25
#: The least share of its time that the loop waits for data, and that the workers compute.
_WAITING, _COMPUTING = 0.5, 0.75


def worker_cores(cell: Cell, launches: Sequence[Measurement]) -> float | None:
    """Cores that each worker kept busy on average; None without workers or if not measured."""
    told = [one for one in launches if "worker_cpu_s" in one.reads and one.throughput_s]
    seconds = sum(one.throughput_s or 0.0 for one in told)
    if not cell.workers or seconds <= 0:
        return None
    return sum(one.reads["worker_cpu_s"] for one in told) / seconds / cell.workers


def computing_finding(cell: Cell, launches: Sequence[Measurement], cores: int) -> Finding | None:
    """A finding that the loop waits for workers that compute, so a faster disk would not help.

    Args:
        cell: the cell that was launched.
        launches: the measurements of its launches.
        cores: physical cores that it may use.
    """
    busy, waits = worker_cores(cell, launches), _wait_share(launches)
    if busy is None or waits is None or waits < _WAITING or busy >= _MORE_THAN_ONE:
        return None
    reading = reading_of(launches)
    if busy * cell.workers < _COMPUTING * min(cores, cell.workers):
        return None
    if reading is not None and reading.uses_storage and reading.is_disk_busy:
        return None  # the disk may also be a limit
    workers = "the worker" if cell.workers == 1 else f"each of {cell.workers} workers"
    text = (
        f"the loop waits for data {format_percent(waits)} of its time, and {workers} keeps "
        f"{busy:.2f} cores busy: decoding, decompression, or Python code for each row"
    )
    if reading is not None:
        text += (
            f". {format_bytes(reading.storage_per_s)}/s come from storage, so a faster disk would "
            "not help"
        )
    text += "; which line it is, ctrkit explain PID shows"
    return Finding(stage="workers", share=None, worth_x=None, text=text, confidence="medium")


def _wait_share(launches: Sequence[Measurement]) -> float | None:
    found = [share for share in map(data_wait_share, launches) if share is not None]
    return sum(found) / len(found) if found else None


def threads_finding(cell: Cell, launches: Sequence[Measurement]) -> Finding | None:
    """A finding that each worker uses more than one core: a library in it starts threads."""
    cores = worker_cores(cell, launches)
    if cores is None or cores < _MORE_THAN_ONE:
        return None
    use = max((one.in_use for one in launches), key=lambda use: use.worker_threads or 0)
    threads = f" with {use.worker_threads} threads" if use.worker_threads else ""
    loaded = f" Loaded there: {', '.join(use.libraries)}." if use.libraries else ""
    return Finding(
        stage="threads",
        share=None,
        worth_x=None,
        text=(
            f"each of {cell.workers} workers keeps {cores:.1f} cores busy{threads}: a library in "
            f"it starts threads of its own, that take the cores from each other.{loaded} Give each "
            "worker one thread (OMP_NUM_THREADS=1, cv2.setNumThreads(0), POLARS_MAX_THREADS=1, "
            "TOKENIZERS_PARALLELISM=false), or take fewer workers; what it gains was not measured"
        ),
        confidence="medium",
    )
