"""Estimates each cell's memory from the measured ones, so that none is tried that cannot fit."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ctrkit.core.checkup import MachineLimits
from ctrkit.core.child_records import Inspection
from ctrkit.core.config import Cell
from ctrkit.core.records import Finding
from ctrkit.core.units import format_bytes, format_count, format_percent
from ctrkit.probe.trials import Trial

#: The largest share of free memory to plan with.
MOST_SHARE = 0.8
_OUT_OF_MEMORY = "out-of-memory"
#: Stages in which a loader has already given batches.
LATER_STAGES = ("step", "epoch boundary")


@dataclass(frozen=True, kw_only=True)
class MemoryLine:
    """Bytes as a straight line over the rows of a batch, from at least two batch sizes."""

    fixed_bytes: float
    row_bytes: float
    measured: tuple[int, ...]

    def at(self, batch_size: int) -> float:
        """Bytes at a batch size."""
        return self.fixed_bytes + self.row_bytes * batch_size


def memory_refusal(
    cell: Cell, trials: Sequence[Trial], inspection: Inspection, limits: MachineLimits | None
) -> str | None:
    """Why this cell is not tried; None if it is, or if nothing is known.

    `limits` are what was free before the first trial; with None, only earlier failures count.
    """
    smaller = failed_smaller(cell, trials)
    if smaller is not None:
        return f"{smaller.name} ran out of memory, and this one takes more; use a smaller batch"
    if limits is None or (not cell.workers and _alone(cell, trials)):
        return None
    shared = cell.queued_batches * (inspection.needs.row_bytes or 0) * cell.batch_size
    free_device = inspection.device_memory_bytes.get(cell.device)
    for needed, free, where in (
        (host_bytes(cell, trials, inspection), limits.memory_bytes, "memory"),
        (shared, limits.shm_bytes if limits.system == "Linux" else None, "/dev/shm"),
        (device_bytes(cell, trials), free_device, f"{cell.device} memory"),
    ):
        if needed and free is not None and needed > MOST_SHARE * free:
            return (
                f"it is predicted to take {format_bytes(round(needed))} of {where}, more than"
                f" {format_percent(MOST_SHARE)} of the {format_bytes(free)} that are free; use"
                " fewer workers, a smaller prefetch or a smaller batch"
            )
    return None


def failed_smaller(cell: Cell, trials: Sequence[Trial]) -> Cell | None:
    """A cell with a smaller batch or fewer workers that ran out of memory on this device.

    A cell that ran out of memory while stepping says nothing about more workers: its rows pile up,
    and more workers share them.
    """
    for trial in trials:
        other = trial.cell
        if (
            trial.result.verdict == _OUT_OF_MEMORY
            and other.device == cell.device
            and (trial.request.kind == "compute" or other.loader == cell.loader)
            and other.batch_size <= cell.batch_size
            and other.workers <= cell.workers
            and (other.batch_size, other.workers) != (cell.batch_size, cell.workers)
            and (other.batch_size < cell.batch_size or trial.result.stage not in LATER_STAGES)
        ):
            return other
    return None


def host_bytes(cell: Cell, trials: Sequence[Trial], inspection: Inspection) -> float | None:
    """Predicted peak memory of the process tree, in bytes: the loop at this batch, and its workers.

    A worker counts with the extra memory of a trial with the nearest worker count, including
    waiting batches; before there is such a trial, with what the workload says it needs. Without a
    trial of the loop alone, two numbers of workers tell what one more takes.
    """
    line = host_line(cell, trials)
    peaks = [t.result.peak_rss_bytes or 0 for t in _alone(cell, trials)]
    by_workers = _peaks_by_workers(cell, trials)
    if not peaks and cell.workers and len(by_workers) > 1:
        return _over_workers(by_workers, cell.workers)
    loop = line.at(cell.batch_size) if line else float(max(peaks, default=0))
    if not cell.workers:
        return loop or None
    needs = inspection.needs
    each = _worker_bytes(cell, trials)
    if each is None:
        own = 0 if cell.start_method == "fork" else needs.worker_bytes or 0
        each = own + (cell.prefetch or 0) * (needs.row_bytes or 0) * cell.batch_size
    return loop + cell.workers * each or None


def least_risky_first(
    chosen: Sequence[Cell],
    launched: Collection[Cell],
    trials: Sequence[Trial],
    limits: MachineLimits | None,
) -> list[Cell]:
    """The cells to run next, with fewer workers first where many may not fit into memory.

    If only one number of workers was run, what a worker takes is unknown: at most its part of all
    memory. Then the most workers that fit even so are run first, or else the fewest: the second
    number tells.
    """
    ordered = list(chosen)
    free = limits.memory_bytes if limits else None
    if not ordered or free is None:
        return ordered

    def is_risky(cell: Cell) -> bool:
        most = _most_host_bytes(cell, trials)
        return most is not None and most > MOST_SHARE * free

    if not is_risky(ordered[0]):
        return ordered
    known = _peaks_by_workers(ordered[0], trials)  # their twins would tell nothing new
    fewer = [
        c for c in ordered
        if 0 < c.workers <= ordered[0].workers and c not in launched and c.workers not in known
    ]  # fmt: skip
    fitting = [c for c in fewer if not is_risky(c)]
    if fitting:
        first = max(fitting, key=lambda c: c.workers)
    else:
        first = min(fewer, key=lambda c: c.workers, default=ordered[0])
    return [first, *(c for c in ordered if c != first)]


def _most_host_bytes(cell: Cell, trials: Sequence[Trial]) -> float | None:
    """The most that the process tree may take, by the one number of workers that was run.

    None if it is known better, or if fewer workers are asked about.
    """
    peaks = _peaks_by_workers(cell, trials)
    if len(peaks) != 1 or _alone(cell, trials):
        return None
    ((workers, peak),) = peaks.items()
    return None if cell.workers <= workers else peak * cell.workers / workers


def _peaks_by_workers(cell: Cell, trials: Sequence[Trial]) -> dict[int, int]:
    """Peaks of whole launches with workers, by their number, of the same loader and batch."""
    peaks: dict[int, int] = {}
    for trial in trials:
        own, peak = trial.cell, trial.result.peak_rss_bytes
        like = (own.device, own.loader, own.batch_size, own.start_method) == (
            cell.device, cell.loader, cell.batch_size, cell.start_method,
        )  # fmt: skip
        if like and own.workers and trial.request.kind == "full" and trial.usable and peak:
            peaks[own.workers] = max(peak, peaks.get(own.workers, 0))
    return peaks


def _over_workers(peaks: Mapping[int, int], workers: int) -> float:
    """Bytes with so many workers, on the line through the two nearest numbers of them."""
    few, many = sorted(sorted(peaks, key=lambda n: abs(n - workers))[:2])
    each = max(0.0, (peaks[many] - peaks[few]) / (many - few))
    return max(0.0, peaks[many] + (workers - many) * each)


def _alone(cell: Cell, trials: Sequence[Trial]) -> list[Trial]:
    """Trials of the same step and batch without workers."""
    return [
        t
        for t in _stepping(cell, trials)
        if t.cell.batch_size == cell.batch_size and t.result.peak_rss_bytes
    ]


def _stepping(cell: Cell, trials: Sequence[Trial]) -> list[Trial]:
    """Usable trials on the same device, with the step and without worker processes."""
    return [
        t
        for t in trials
        if t.usable
        and t.cell.device == cell.device
        and (t.request.kind == "compute" or (t.request.kind == "full" and not t.cell.workers))
    ]


def _worker_bytes(cell: Cell, trials: Sequence[Trial]) -> float | None:
    """Bytes per worker in trials with the same loader and batch, besides the loop."""
    found: dict[int, float] = {}
    for trial in trials:
        like = (trial.cell.loader, trial.cell.batch_size, trial.cell.start_method) == (
            cell.loader, cell.batch_size, cell.start_method,
        )  # fmt: skip
        peak = trial.result.peak_rss_bytes
        if not like or not trial.cell.workers or not trial.usable or peak is None:
            continue
        alone = [
            t.result.peak_rss_bytes
            for t in trials
            if t.usable
            and t.result.peak_rss_bytes
            and not t.cell.workers
            and t.cell.batch_size == cell.batch_size
            and (t.request.kind == trial.request.kind or trial.request.kind == "full")
        ]
        if alone:
            each = max(0, peak - max(alone)) / trial.cell.workers
            found[trial.cell.workers] = max(each, found.get(trial.cell.workers, 0.0))
    nearest = min(found, key=lambda w: abs(w - cell.workers), default=None)
    return None if nearest is None else found[nearest]


def host_line(cell: Cell, trials: Sequence[Trial]) -> MemoryLine | None:
    """Host memory over the batch size, if at least two sizes were measured on this device."""
    return _line([(t.cell.batch_size, t.result.peak_rss_bytes) for t in _stepping(cell, trials)])


def device_line(cell: Cell, trials: Sequence[Trial]) -> MemoryLine | None:
    """Device memory over the batch size, if at least two sizes were measured."""
    return _line(
        [
            (t.cell.batch_size, t.result.measurement.peak_device_bytes)
            for t in trials
            if t.usable and t.cell.device == cell.device and t.result.measurement is not None
        ]
    )


def device_bytes(cell: Cell, trials: Sequence[Trial]) -> float | None:
    """Predicted peak of device memory, in bytes; None before two batch sizes were measured."""
    line = device_line(cell, trials)
    return None if line is None else line.at(cell.batch_size)


def _line(points: Sequence[tuple[int, int | None]]) -> MemoryLine | None:
    """The least-squares line through the peaks of each batch size; None for a single size."""
    peaks: dict[int, int] = {}
    for batch, taken in points:
        if taken:
            peaks[batch] = max(taken, peaks.get(batch, 0))
    if len(peaks) < 2:
        return None
    mean_x, mean_y = sum(peaks) / len(peaks), sum(peaks.values()) / len(peaks)
    spread = sum((x - mean_x) ** 2 for x in peaks)
    # a larger batch never takes less memory; anything else is noise
    slope = max(0.0, sum((x - mean_x) * (y - mean_y) for x, y in peaks.items()) / spread)
    return MemoryLine(
        fixed_bytes=mean_y - slope * mean_x, row_bytes=slope, measured=tuple(sorted(peaks))
    )


def largest_batch(line: MemoryLine, free_bytes: int, also_row_bytes: float = 0.0) -> int | None:
    """Rows of the largest batch within 80 % of free memory; None if none or any would fit."""
    row_bytes = line.row_bytes + also_row_bytes
    room = MOST_SHARE * free_bytes - line.fixed_bytes
    return math.floor(room / row_bytes) if row_bytes > 0 and room >= row_bytes else None


def batch_memory_finding(
    cell: Cell, trials: Sequence[Trial], inspection: Inspection, limits: MachineLimits | None
) -> Finding | None:
    """A finding on a batch's memory and the largest that fits, if several sizes were measured."""
    on_device = device_line(cell, trials)
    line = on_device or host_line(cell, trials)
    if line is None:
        return None
    where = f"{cell.device} memory" if on_device else "memory"
    free = limits.memory_bytes if limits else None
    if on_device:
        free = inspection.device_memory_bytes.get(cell.device)
    queued = cell.queued_batches
    queued_row_bytes = queued * (inspection.needs.row_bytes or 0)
    sizes = " and ".join(format_count(size) for size in line.measured)
    text = f"a row of the batch costs {format_bytes(round(line.row_bytes))} of {where}"
    text += f" (activations and batch; measured at {sizes})"
    if queued_row_bytes:
        each = format_bytes(round(queued_row_bytes * cell.batch_size))
        text += f"; {queued} prefetched batches of the workers take {each} on the host"
    failed = min(
        (
            t.cell.batch_size
            for t in trials
            if t.result.verdict == _OUT_OF_MEMORY and t.cell.device == cell.device
        ),
        default=None,
    )
    if failed is not None:
        text += f"; batch {format_count(failed)} ran out of memory"
    most = None if free is None else largest_batch(line, free, 0 if on_device else queued_row_bytes)
    if most is not None and failed is not None:
        most = min(most, failed - 1)
    if most is not None and free is not None:
        text += (
            f"; about {format_count(most)} rows are the most that fit into"
            f" {format_percent(MOST_SHARE)} of the {format_bytes(free)} that are free (on a"
            " straight line, not tried)"
        )
    return Finding(
        stage="batch memory", share=None, worth_x=None, text=text,
        confidence="medium" if len(line.measured) > 2 else "low",
    )  # fmt: skip
