"""Four ways to load the same batches: rows, batches, thread and resident."""

from __future__ import annotations

import queue
import signal
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ctrkit.config import LOADERS, Cell
from ctrkit.data.gather import BATCH_KEYS, COLUMN, ID_COLUMNS, gather
from ctrkit.data.order import batch_count, batch_slices, epoch_order
from ctrkit.data.store import SPLITS, Int64Array, Store
from ctrkit.errors import UsageError

Batch = dict[str, torch.Tensor]

#: batches that the thread loader keeps ready
_THREAD_DEPTH = 2
_POLL_S = 0.1
_JOIN_S = 30.0


class StoreLoader(ABC):
    """Batches of one split of a store, in the order of a seed: `EpochLoader` for all four ways.

    The train split is shuffled anew each epoch; validation keeps the order of the store. One
    iterator at a time: a new `iter()` ends the one before. `len()` is the batches of a whole epoch.
    """

    def __init__(
        self,
        store: Store,
        cell: Cell,
        *,
        split: str,
        seed: int,
        history_length: int,
        drop_last: bool,
    ) -> None:
        self.store = store
        self.cell = cell
        self.split = split
        self.seed = seed
        self.history_length = history_length
        self.drop_last = drop_last
        self.rows = store.rows(split)
        self._epoch = 1
        self._first_batch = 0
        self._current: weakref.ref[Iterator[Batch]] | None = None

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Choose the order of the next `iter()`, and the batch it begins with."""
        self._epoch = epoch
        self._first_batch = first_batch

    def __len__(self) -> int:
        return batch_count(len(self.rows), self.cell.batch_size, drop_last=self.drop_last)

    def __iter__(self) -> Iterator[Batch]:
        self._end_current()
        iterator = self._batches()
        self._current = weakref.ref(iterator)
        return iterator

    def close(self) -> None:
        """End the iterator and whatever works for it. More than once is fine."""
        self._end_current()

    def order(self) -> Int64Array:
        """Row numbers in `store.impressions` in the order of the epoch, (rows of the split,)."""
        if self.split == "train":
            return epoch_order(len(self.rows), self.seed, self._epoch) + self.rows.start
        return np.arange(self.rows.start, self.rows.stop, dtype=np.int64)

    def slices(self) -> Iterator[slice]:
        """Where in `order()` the batches lie that are still to come."""
        return batch_slices(
            len(self.rows),
            self.cell.batch_size,
            first_batch=self._first_batch,
            drop_last=self.drop_last,
        )

    @abstractmethod
    def _batches(self) -> Iterator[Batch]:
        """A generator of the epoch's batches that cleans up when it is closed."""

    def _end_current(self) -> None:
        current = self._current() if self._current is not None else None
        self._current = None
        if current is not None:
            current.close()  # type: ignore[attr-defined]


def make_loader(
    store: Store,
    cell: Cell,
    *,
    split: str,
    seed: int,
    history_length: int,
    drop_last: bool = False,
) -> StoreLoader:
    """The loader of a cell. All loaders yield the same batches, byte for byte.

    A batch is a dict of tensors: `user`, `item`, `category`, `hour`, `weekday`, `history_length`
    int32 (B,), `label` float32 (B,), `history_item` and `history_category` int32 (B, L). They are
    on the host, but of `resident` on `cell.device`.

    Args:
        store: where the rows are.
        cell: loader, workers, start method, prefetch, persistent, pin, batch size, device.
        split: `train` or `validation`.
        seed: of the order of the training rows.
        history_length: L.
        drop_last: leave out a last batch that is short.

    Raises:
        UsageError: a cell that no loader can serve.
    """
    if split not in SPLITS:
        raise UsageError(f"unknown split '{split}'; known are {', '.join(SPLITS)}")
    if cell.loader not in LOADERS:
        raise UsageError(f"unknown loader '{cell.loader}'; known are {', '.join(LOADERS)}")
    if cell.workers and cell.loader in ("thread", "resident"):
        raise UsageError(
            f"--loader {cell.loader} has no workers, but {cell.workers} are asked for;"
            " use --workers 0 or another loader"
        )
    if cell.pin and not torch.cuda.is_available():
        raise UsageError("pinned memory needs CUDA, which is not available here; leave out pin")
    kinds: dict[str, type[StoreLoader]] = {
        "rows": RowsLoader,
        "batches": BatchesLoader,
        "thread": ThreadLoader,
        "resident": ResidentLoader,
    }
    return kinds[cell.loader](
        store, cell, split=split, seed=seed, history_length=history_length, drop_last=drop_last
    )


def _tensors(store: Store, indices: Int64Array, history_length: int) -> Batch:
    arrays = gather(store, indices, history_length)
    return {name: torch.from_numpy(arrays[name]) for name in BATCH_KEYS}


class _RowDataset(Dataset[Batch]):
    """One impression at a time, as a stock map-style data set has it."""

    def __init__(self, store: Store, history_length: int) -> None:
        self.store = store
        self.history_length = history_length

    def __len__(self) -> int:
        return len(self.store.impressions)

    def __getitem__(self, index: int) -> Batch:
        store = self.store
        row = store.impressions[index]
        begin, end = int(row[COLUMN["history_begin"]]), int(row[COLUMN["history_end"]])
        begin = max(begin, end - self.history_length)
        sample = {name: torch.tensor(row[COLUMN[name]], dtype=torch.int32) for name in ID_COLUMNS}
        sample["label"] = torch.tensor(row[COLUMN["label"]], dtype=torch.float32)
        for name, column in (
            ("history_item", store.behavior_item),
            ("history_category", store.behavior_category),
        ):
            padded = torch.zeros(self.history_length, dtype=torch.int32)
            padded[: end - begin] = torch.tensor(column[begin:end])
            sample[name] = padded
        sample["history_length"] = torch.tensor(end - begin, dtype=torch.int32)
        return sample


class _BatchDataset(Dataset[Batch]):
    """A whole batch at a time: the index is an array of row numbers."""

    def __init__(self, store: Store, history_length: int) -> None:
        self.store = store
        self.history_length = history_length

    def __getitem__(self, index: Int64Array) -> Batch:
        return _tensors(self.store, index, self.history_length)


class _RowSampler(Sampler[int]):
    """Row numbers of the epoch that the loader is set to; lives in the main process."""

    def __init__(self, loader: StoreLoader) -> None:
        self.loader = weakref.proxy(loader)

    def __iter__(self) -> Iterator[int]:
        order = self.loader.order()
        for part in self.loader.slices():
            yield from order[part].tolist()

    def __len__(self) -> int:
        return len(self.loader.rows)


class _BatchSampler(Sampler[Int64Array]):
    """Arrays of row numbers, one per batch."""

    def __init__(self, loader: StoreLoader) -> None:
        self.loader = weakref.proxy(loader)

    def __iter__(self) -> Iterator[Int64Array]:
        order = self.loader.order()
        for part in self.loader.slices():
            yield order[part]

    def __len__(self) -> int:
        return len(self.loader)


def _ignore_interrupts(_worker: int) -> None:
    """Ctrl-C reaches the whole group; the main process ends its workers itself, quietly."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class _DataLoaderLoader(StoreLoader):
    """What `rows` and `batches` share: a torch DataLoader, started as the cell says."""

    def __init__(self, store: Store, cell: Cell, **kwargs: Any) -> None:
        super().__init__(store, cell, **kwargs)
        # A generator of its own: iterating must not draw from the model's random stream.
        options: dict[str, Any] = {
            "generator": torch.Generator().manual_seed(self.seed % 2**63),
            "num_workers": cell.workers,
            "pin_memory": cell.pin,
        }
        if cell.workers:
            options |= {
                "multiprocessing_context": cell.start_method,
                "prefetch_factor": cell.prefetch,
                "persistent_workers": cell.persistent,
                "worker_init_fn": _ignore_interrupts,
            }
        self._loader: DataLoader[Any] = self._make(options)

    @abstractmethod
    def _make(self, options: dict[str, Any]) -> DataLoader[Any]:
        """The DataLoader with these options and its data set and sampler."""

    def _batches(self) -> Iterator[Batch]:
        iterator = iter(self._loader)
        try:
            yield from iterator
        finally:
            if not self.cell.persistent:
                _end_workers(iterator)

    def close(self) -> None:
        super().close()
        _end_workers(self._loader._iterator)


def _end_workers(iterator: Any) -> None:
    """End a DataLoader iterator's workers now, instead of when it is collected."""
    shut_down = getattr(iterator, "_shutdown_workers", None)
    if shut_down is not None:
        shut_down()


class RowsLoader(_DataLoaderLoader):
    """The stock pattern: a row at a time, then the default collate."""

    def _make(self, options: dict[str, Any]) -> DataLoader[Any]:
        return DataLoader(
            _RowDataset(self.store, self.history_length),
            batch_size=self.cell.batch_size,
            sampler=_RowSampler(self),
            drop_last=self.drop_last,
            **options,
        )


class BatchesLoader(_DataLoaderLoader):
    """A DataLoader whose data set takes a whole index array."""

    def _make(self, options: dict[str, Any]) -> DataLoader[Any]:
        return DataLoader(
            _BatchDataset(self.store, self.history_length),
            batch_size=None,
            sampler=_BatchSampler(self),
            **options,
        )


class _Failure:
    """An exception on its way from the thread to the consumer."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


class ThreadLoader(StoreLoader):
    """Vectorised gather on a background thread: no processes, so nothing to deadlock."""

    def _batches(self) -> Iterator[Batch]:
        ready: queue.Queue[Batch | _Failure | None] = queue.Queue(
            self.cell.prefetch or _THREAD_DEPTH
        )
        stop = threading.Event()
        thread = threading.Thread(
            target=_fill,
            name="ctrkit-loader",
            args=(ready, stop, self.store, self.order(), list(self.slices())),
            kwargs={"history_length": self.history_length, "pin": self.cell.pin},
        )
        thread.start()
        try:
            while True:
                batch = _next_of(ready, thread)
                if batch is None:
                    return
                if isinstance(batch, _Failure):
                    raise batch.error
                yield batch
        finally:
            stop.set()
            thread.join(_JOIN_S)


def _next_of(
    ready: queue.Queue[Batch | _Failure | None], thread: threading.Thread
) -> Batch | _Failure | None:
    """The thread's next message, waited for as long as it lives."""
    while True:
        try:
            return ready.get(timeout=_POLL_S)
        except queue.Empty:
            if not thread.is_alive() and ready.empty():
                raise RuntimeError("the loader's thread ended without a word") from None


def _fill(
    ready: queue.Queue[Batch | _Failure | None],
    stop: threading.Event,
    store: Store,
    order: Int64Array,
    slices: list[slice],
    *,
    history_length: int,
    pin: bool,
) -> None:
    """Body of the thread: gather each batch, wait for room, until the end or `stop`."""
    try:
        for part in slices:
            batch = _tensors(store, order[part], history_length)
            if pin:
                batch = {name: tensor.pin_memory() for name, tensor in batch.items()}
            if not _offer(ready, stop, batch):
                return
        _offer(ready, stop, None)
    except BaseException as error:
        _offer(ready, stop, _Failure(error))


def _offer(
    ready: queue.Queue[Batch | _Failure | None],
    stop: threading.Event,
    message: Batch | _Failure | None,
) -> bool:
    """Put a message once there is room; False when nobody wants it any more."""
    # A consumer that dies holding its iterator never says stop, but the main thread has ended.
    while not stop.is_set() and threading.main_thread().is_alive():
        try:
            ready.put(message, timeout=_POLL_S)
        except queue.Full:
            continue
        return True
    return False


class _ResidentTables:
    """The tables of a store on a device, shared by the loaders of both splits."""

    def __init__(self, store: Store, device: str) -> None:
        def moved(column: Any) -> torch.Tensor:
            # A mapped file is read-only, which torch does not know: hand it a copy.
            return torch.from_numpy(np.array(column)).to(device)

        self.impressions = moved(store.impressions)
        # One event that no history holds, so that an index into an empty table is still one.
        nothing = np.zeros(1, np.int32)
        self.behavior_item = moved(np.concatenate([store.behavior_item, nothing]))
        self.behavior_category = moved(np.concatenate([store.behavior_category, nothing]))


_tables_in_use: weakref.WeakValueDictionary[tuple[str, str, str], _ResidentTables] = (
    weakref.WeakValueDictionary()
)


def _resident_tables(store: Store, device: str) -> _ResidentTables:
    key = (str(store.path.absolute()), store.meta.fingerprint, device)
    tables = _tables_in_use.get(key)
    if tables is None:
        tables = _tables_in_use[key] = _ResidentTables(store, device)
    return tables


class ResidentLoader(StoreLoader):
    """The tables live on the device and are gathered there: no transfer per step."""

    def __init__(self, store: Store, cell: Cell, **kwargs: Any) -> None:
        super().__init__(store, cell, **kwargs)
        self._tables = _resident_tables(store, cell.device)
        self._slot = torch.arange(self.history_length, device=cell.device)

    def _batches(self) -> Iterator[Batch]:
        order = torch.from_numpy(self.order()).to(self.cell.device)
        for part in self.slices():
            yield self._gather(order[part])

    def _gather(self, indices: torch.Tensor) -> Batch:
        tables = self._tables
        columns = tables.impressions[indices].unbind(dim=1)
        end = columns[COLUMN["history_end"]].long()
        begin = torch.maximum(columns[COLUMN["history_begin"]].long(), end - self.history_length)
        length = end - begin
        real = self._slot < length[:, None]
        position = torch.where(real, begin[:, None] + self._slot, 0)
        batch = {name: columns[COLUMN[name]].contiguous() for name in ID_COLUMNS}
        batch["label"] = columns[COLUMN["label"]].float()
        batch["history_item"] = torch.where(real, tables.behavior_item[position], 0)
        batch["history_category"] = torch.where(real, tables.behavior_category[position], 0)
        batch["history_length"] = length.int()
        return batch
