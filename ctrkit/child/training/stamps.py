"""Stamps: when each batch was made. Workers write them into rings, and the loop reads them later.

Beside the batches, never in them: a worker writes five numbers per batch into a memory map of its
own. The clock is `time.monotonic()`, which processes of one machine share. Where the loop's own
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

#: Set to `1` in the environment of a child whose workers are to stamp, `0` forbids it.
STAMPS_VARIABLE = "CTRKIT_STAMPS"
#: Batches that a worker's ring holds; the oldest are overwritten.
RING = 4096
_COLUMNS = 7
_ROW = struct.Struct(f"={_COLUMNS}d")
_WORKER, _BATCH, _START, _FETCHED, _MADE, _SENT, _WHOLE = range(_COLUMNS)


@dataclass(frozen=True)
class BatchStamp:
    """A batch that a worker made, by its number in the iterator's epoch; seconds of the clock.

    `start_s`: the worker took the indices; `fetched_s`: it has the samples; `made_s`: they are
    collated; `sent_s`: they are pickled and on their way (`made_s` where that is not known).
    """

    worker: int
    batch: int
    start_s: float
    fetched_s: float
    made_s: float
    sent_s: float


def wanted() -> bool:
    """Whether the workers of this process stamp their batches."""
    return os.environ.get(STAMPS_VARIABLE) == "1"


def ring_path(folder: str | os.PathLike[str], pid: int) -> Path:
    """Where the worker `pid` of the child with this folder keeps its stamps."""
    return Path(folder) / f"batches-{pid}.bin"


class StampWriter:
    """A worker's side. Its loop tells what it does; about a microsecond a batch."""

    def __init__(self, folder: str | os.PathLike[str], worker: int) -> None:
        path = ring_path(folder, os.getpid())
        path.write_bytes(bytes(RING * _COLUMNS * 8))  # whole: a full disk is an error, no SIGBUS
        with open(path, "r+b") as file:
            self._cells = memoryview(mmap.mmap(file.fileno(), 0)).cast("d")
        self._worker, self._count = worker, 0
        self._batch, self._start_s, self._fetched_s = -1, 0.0, 0.0
        self._waiting: dict[int, int] = {}

    def started(self, batch: int) -> None:
        """It has the indices of its next batch."""
        self._batch, self._start_s, self._fetched_s = batch, time.monotonic(), 0.0

    def fetched(self) -> None:
        """It has the samples and goes on to collate them."""
        self._fetched_s = time.monotonic()

    def made(self, batch: Any) -> None:
        """It is about to hand the batch over."""
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
        """It is pickled: called by the thread that sends."""
        at = self._waiting.pop(batch, None)
        if at is not None:
            self._cells[at + _SENT] = time.monotonic()


def stamped_collate(collate: Callable[[Any], Any], stamp: Callable[[], None]) -> Callable[..., Any]:
    """`collate` that says when it is called; what it takes, returns and raises is as before."""

    def collate_stamped(samples: Any) -> Any:
        stamp()
        return collate(samples)

    return collate_stamped


class _StampingPickler:
    """In place of the pickler of a worker's queues: the same bytes, and a stamp when they are."""

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
    """From now on what this process puts into queues is stamped once it is pickled.

    Does nothing where the library's queues have no such pickler.
    """
    name = "_ForkingPickler"
    pickler = getattr(multiprocessing.queues, name, None)
    if pickler is not None and hasattr(pickler, "dumps"):
        setattr(multiprocessing.queues, name, _StampingPickler(pickler, writer))


def read_rings(
    folder: str | os.PathLike[str], since_s: float, pids: Iterable[int] | None = None
) -> list[BatchStamp]:
    """Batches that workers of the child, or those of these pids, made since then, by number."""
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
    """The stamps of an epoch's batches in the order of delivery; empty where they do not fit.

    A DataLoader delivers in order, so the i-th batch is number i. It is not where there are two
    of them, a worker of an iterable data set has ended, or with `in_order=False`: then a number is
    missing or there twice, or a batch was delivered before it was made.
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
    """Write how batches were made into the columns of a `child_records.Stamps`, from `first` on."""
    for i, one in enumerate(made, start=first):
        stamps.worker[i] = one.worker
        stamps.fetch_start_s[i] = one.start_s - launched_s
        stamps.fetch_end_s[i] = one.fetched_s - launched_s
        stamps.collate_end_s[i] = one.made_s - launched_s
        # the sending thread may not have noted it yet when the loop has the batch already
        stamps.sent_s[i] = min(one.sent_s - launched_s, stamps.delivered_s[i])


class _Seen:
    """What this process itself saw of its DataLoaders: batches collated here, batches delivered."""

    def __init__(self) -> None:
        self.collated, self.collate_s, self.delivered = 0, 0.0, 0

    def collate(self) -> None:
        """A collate begins."""
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
    """From now on this process sees when its DataLoaders collate."""
    setattr(_DatasetKind, "create_fetcher", staticmethod(_create_fetcher))  # noqa: B010


def last_collate_s() -> float:
    """When this process began to collate its newest batch."""
    return _seen.collate_s


def _see_batches() -> None:
    """From now on this process sees what its DataLoaders collate and deliver."""
    see_collates()
    setattr(_BaseDataLoaderIter, "__next__", _next)  # noqa: B010


class BatchClock:
    """Finds out for a trial how the batches of an epoch were made, whoever makes them.

    Only batches that a DataLoader or the `thread` and `resident` loaders make are seen, and those
    of workers only where each of the loop's batches is one of the DataLoader's.
    """

    def __init__(self, folder: str, cell: Cell, launched_s: float) -> None:
        os.environ.setdefault(STAMPS_VARIABLE, "1")
        self._folder, self._cell, self._launched_s = folder, cell, launched_s
        self._since_s, self._collated, self._delivered = 0.0, 0, 0
        self._plain, self._by_thread = True, list[tuple[int, float, float]]()
        if wanted():
            _see_batches()

    def begin_epoch(self, loader: Any) -> None:
        """The iterator of a new epoch is about to be made."""
        self._since_s, self._plain = time.monotonic(), True
        self._collated, self._delivered = _seen.collated, _seen.delivered
        made = self._by_thread = []
        if hasattr(loader, "on_made"):
            loader.on_made = lambda *batch: made.append(batch)

    def leave_out(self, seconds: float) -> None:
        """The loop's clock stood still for so long."""
        self._launched_s += seconds

    def taken(self, asked_s: float, delivered_s: float) -> dict[str, float]:
        """To be called for each batch once the loop has it: times in seconds since the launch.

        Returns its stamps, if this very thread made it.
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
        """Fill in what workers and threads kept of the epoch whose steps begin at index `first`.

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
