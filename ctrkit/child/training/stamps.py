"""Stamps: when each batch was made. Workers write them into rings, and the loop reads them later.

Stamps never travel in the batches: a worker writes five numbers per batch into a memory map of its
own. The clock is `time.monotonic()`, which all processes of a machine share. If the loop's own
process makes the batches, only the moment between fetch and collate is kept.

Needs torch and the standard library only, since it also runs in a script's own interpreter.
"""

from __future__ import annotations

import mmap
import multiprocessing.queues
import os
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.utils.data import _DatasetKind
from torch.utils.data.dataloader import _BaseDataLoaderIter

if TYPE_CHECKING:
    from ctrkit.core.config import Cell

#: Environment variable of a child: `1` lets its workers write stamps, `0` forbids it.
STAMPS_VARIABLE = "CTRKIT_STAMPS"
#: Number of batches in a worker's ring; the oldest are overwritten.
RING = 4096
_COLUMNS = 7
_ROW = struct.Struct(f"={_COLUMNS}d")
_WORKER, _BATCH, _START, _FETCHED, _MADE, _SENT, _WHOLE = range(_COLUMNS)


@dataclass(frozen=True)
class BatchStamp:
    """The times at which a worker made a batch, in seconds of `time.monotonic()`.

    Attributes:
        start_s: the worker got the indices.
        fetched_s: it had the samples.
        made_s: it had collated them.
        sent_s: it had pickled them, and they were on their way; `made_s` if unknown.
    """

    worker: int
    batch: int
    start_s: float
    fetched_s: float
    made_s: float
    sent_s: float


def wanted() -> bool:
    """Whether the workers of this process write stamps."""
    return os.environ.get(STAMPS_VARIABLE) == "1"


def ring_path(folder: str | os.PathLike[str], pid: int) -> Path:
    """The ring file of the worker `pid`, in the child's folder."""
    return Path(folder) / f"batches-{pid}.bin"


class StampWriter:
    """Writes a worker's stamps. Its loop calls the methods; about a microsecond per batch."""

    def __init__(self, folder: str | os.PathLike[str], worker: int) -> None:
        path = ring_path(folder, os.getpid())
        # write it in full, so that a full disk raises an error here instead of SIGBUS later
        path.write_bytes(bytes(RING * _COLUMNS * 8))
        with open(path, "r+b") as file:
            self._cells = memoryview(mmap.mmap(file.fileno(), 0)).cast("d")
        self._worker, self._count = worker, 0
        self._batch, self._start_s, self._fetched_s = -1, 0.0, 0.0
        self._waiting: dict[int, int] = {}

    def started(self, batch: int) -> None:
        """The worker has the indices of its next batch."""
        self._batch, self._start_s, self._fetched_s = batch, time.monotonic(), 0.0

    def fetched(self) -> None:
        """The worker has the samples, and will collate them next."""
        self._fetched_s = time.monotonic()

    def made(self, batch: Any) -> None:
        """The worker has made the batch, and is about to send it."""
        now_s = time.monotonic()
        if batch != self._batch:
            return
        at = self._count % RING * _COLUMNS
        self._count += 1
        self._waiting[batch] = at
        fetched_s = self._fetched_s or now_s
        values = (self._worker, batch, self._start_s, fetched_s, now_s, now_s)
        cells = self._cells
        cells[at + _WHOLE] = 0.0
        for offset, value in enumerate(values):
            cells[at + offset] = value
        cells[at + _WHOLE] = 1.0

    def sent(self, batch: int) -> None:
        """The batch is pickled; called by the queue's sending thread."""
        at = self._waiting.pop(batch, None)
        if at is not None:
            self._cells[at + _SENT] = time.monotonic()


def stamped_collate(collate: Callable[[Any], Any], stamp: Callable[[], None]) -> Callable[..., Any]:
    """A wrapper of `collate` that calls `stamp` first; otherwise it behaves the same."""

    def collate_stamped(samples: Any) -> Any:
        stamp()
        return collate(samples)

    return collate_stamped


class _StampingPickler:
    """Replaces the pickler of a worker's queues: same bytes, and a stamp when they are made."""

    def __init__(self, pickler: Any, writer: StampWriter) -> None:
        self._pickler, self._writer = pickler, writer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pickler, name)

    def dumps(self, message: Any, *arguments: Any) -> Any:
        data = self._pickler.dumps(message, *arguments)
        if isinstance(message, tuple) and message and isinstance(message[0], int):
            self._writer.sent(message[0])
        return data


def stamp_sending(writer: StampWriter) -> None:
    """From now on, stamp each message that this process puts into a queue, once it is pickled.

    Does nothing if the library's queues have no such pickler.
    """
    name = "_ForkingPickler"
    pickler = getattr(multiprocessing.queues, name, None)
    if pickler is not None and hasattr(pickler, "dumps"):
        setattr(multiprocessing.queues, name, _StampingPickler(pickler, writer))


def read_rings(
    folder: str | os.PathLike[str], since_s: float, pids: Iterable[int] | None = None
) -> list[BatchStamp]:
    """The stamps since `since_s` of the child's workers, or of these pids, sorted by number."""
    found: list[BatchStamp] = []
    paths = Path(folder).glob("batches-*.bin")
    for path in paths if pids is None else (ring_path(folder, pid) for pid in pids):
        try:
            content = path.read_bytes()
        except OSError:
            continue
        for row in _ROW.iter_unpack(content[: len(content) // _ROW.size * _ROW.size]):
            if row[_WHOLE] != 1.0 or row[_START] < since_s:
                continue
            found.append(
                BatchStamp(
                    worker=int(row[_WORKER]), batch=int(row[_BATCH]), start_s=row[_START],
                    fetched_s=row[_FETCHED], made_s=row[_MADE], sent_s=row[_SENT],
                )
            )  # fmt: skip
    return sorted(found, key=lambda one: (one.batch, one.start_s))


def matched(stamps: Sequence[BatchStamp], delivered_s: Iterable[float]) -> list[BatchStamp]:
    """The stamps of an epoch's batches in the order of delivery; empty if they do not match.

    A DataLoader delivers in order, so the i-th batch is number i. That does not hold with two
    DataLoaders, when a worker of an iterable data set has ended early, or with `in_order=False`.
    Then a number is missing or occurs twice, or a batch was delivered before it was made.
    """
    by_batch = {stamp.batch: stamp for stamp in stamps}
    found = []
    for number, at_s in enumerate(delivered_s):
        stamp = by_batch.get(number)
        if stamp is None or stamp.made_s > at_s:
            return []
        found.append(stamp)
    return found if len(by_batch) == len(stamps) else []


def fill_in(stamps: Any, first: int, made: Sequence[BatchStamp], launched_s: float) -> None:
    """Write the workers' times into the columns of a `child_records.Stamps`, from index `first`."""
    for i, one in enumerate(made, start=first):
        stamps.worker[i] = one.worker
        stamps.fetch_start_s[i] = one.start_s - launched_s
        stamps.fetch_end_s[i] = one.fetched_s - launched_s
        stamps.collate_end_s[i] = one.made_s - launched_s
        # the loop may have the batch before the sending thread has noted its stamp
        stamps.sent_s[i] = min(one.sent_s - launched_s, stamps.delivered_s[i])


class _Seen:
    """What this process saw of its DataLoaders: batches it collated, batches delivered to it."""

    def __init__(self) -> None:
        self.collated, self.collate_s, self.delivered = 0, 0.0, 0

    def collate(self) -> None:
        """Note that a collate begins."""
        self.collated, self.collate_s = self.collated + 1, time.monotonic()


_seen = _Seen()
_torch_create_fetcher = _DatasetKind.create_fetcher
_torch_next = _BaseDataLoaderIter.__next__


def _create_fetcher(
    kind: Any, dataset: Any, auto_collation: Any, collate_fn: Any, *arguments: Any
) -> Any:
    collate = stamped_collate(collate_fn, _seen.collate)
    return _torch_create_fetcher(  # type: ignore[no-untyped-call]
        kind, dataset, auto_collation, collate, *arguments
    )


def _next(iterator: Any) -> Any:
    batch = _torch_next(iterator)
    _seen.delivered += 1
    return batch


def see_collates() -> None:
    """From now on, note when DataLoaders of this process collate in this process."""
    setattr(_DatasetKind, "create_fetcher", staticmethod(_create_fetcher))  # noqa: B010


def last_collate_s() -> float:
    """When this process began to collate its newest batch."""
    return _seen.collate_s


def _see_batches() -> None:
    """From now on, note what DataLoaders of this process collate and deliver."""
    see_collates()
    setattr(_BaseDataLoaderIter, "__next__", _next)  # noqa: B010


class BatchClock:
    """Finds out for a trial when the batches of an epoch were made.

    It sees batches that a DataLoader, or the loaders `thread` and `resident`, make. It sees those
    of worker processes only if each batch of the loop is exactly one batch of the DataLoader.
    """

    def __init__(self, folder: str, cell: Cell, launched_s: float) -> None:
        os.environ.setdefault(STAMPS_VARIABLE, "1")
        self._folder, self._cell, self._launched_s = folder, cell, launched_s
        self._since_s, self._collated, self._delivered = 0.0, 0, 0
        self._plain, self._by_thread = True, list[tuple[int, float, float]]()
        if wanted():
            _see_batches()

    def begin_epoch(self, loader: Any) -> None:
        """Prepare for a new epoch; call it just before the iterator is made."""
        self._since_s, self._plain = time.monotonic(), True
        self._collated, self._delivered = _seen.collated, _seen.delivered
        made = self._by_thread = []
        if hasattr(loader, "on_made"):
            loader.on_made = lambda *batch: made.append(batch)

    def leave_out(self, seconds: float) -> None:
        """Subtract a time for which the loop's clock stood still."""
        self._launched_s += seconds

    def taken(self, asked_s: float, delivered_s: float) -> dict[str, float]:
        """Call it for each batch when the loop has it; times in seconds since the launch.

        Returns:
            The batch's stamps, if this thread made the batch; else empty.
        """
        collated, self._collated = _seen.collated - self._collated, _seen.collated
        delivered, self._delivered = _seen.delivered - self._delivered, _seen.delivered
        self._plain = self._plain and delivered == 1
        if self._cell.loader == "resident" and wanted():
            fetched_s = delivered_s
        elif collated == 1:
            fetched_s = _seen.collate_s - self._launched_s
        else:
            return {}
        return {"fetch_start_s": asked_s, "fetch_end_s": fetched_s, "collate_end_s": delivered_s}

    def complete(self, stamps: Any, first: int) -> None:
        """Fill in the stamps of workers and threads for the epoch that begins at index `first`.

        `stamps` has the columns of a `child_records.Stamps`.
        """
        delivered_s = [at_s + self._launched_s for at_s in stamps.delivered_s[first:]]
        if not delivered_s:
            return
        by_workers = wanted() and self._cell.workers > 0 and self._plain
        kept = read_rings(self._folder, self._since_s) if by_workers else []
        threaded = self._cell.loader == "thread"
        if threaded:
            kept = [
                BatchStamp(
                    worker=0, batch=i, start_s=begin_s, fetched_s=end_s, made_s=end_s, sent_s=end_s
                )
                for i, begin_s, end_s in list(self._by_thread)
            ]
        fill_in(stamps, first, matched(kept, delivered_s), self._launched_s)
        if threaded:
            stamps.worker[first:] = [None] * len(delivered_s)
