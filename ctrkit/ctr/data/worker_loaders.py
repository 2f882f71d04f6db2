"""The loaders `rows` and `batches`: torch's DataLoader, with or without worker processes."""

from __future__ import annotations

import signal
import weakref
from abc import abstractmethod
from collections.abc import Iterator
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from ctrkit.core.config import Cell
from ctrkit.ctr.data.buffers import Batch, BlockMaker, BlockPool
from ctrkit.ctr.data.gather import COLUMN, ID_COLUMNS, Gatherer
from ctrkit.ctr.data.store import IndexArray, Store
from ctrkit.ctr.data.store_loader import StoreLoader

#: number of batches whose memory a process keeps for reuse
_KEPT_BLOCKS = 4


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

    def collate(self, samples: list[Batch]) -> Batch:
        """As torch's default, except that a rank's part of a batch may be empty."""
        if samples:
            return cast(Batch, default_collate(samples))
        return _BatchDataset(self.store, self.history_length, 1)[np.empty(0, np.int32)]


class _BatchDataset(Dataset[Batch]):
    """A whole batch at a time: the index is an array of row numbers."""

    def __init__(self, store: Store, history_length: int, batch_size: int) -> None:
        self.store = store
        self.history_length, self.batch_size = history_length, batch_size

    @cached_property
    def _make(self) -> BlockMaker:
        """The maker of blocks, made in the process that takes the first batch.

        Never sent to another.
        """
        pool = BlockPool(self.batch_size, self.history_length, keep=_KEPT_BLOCKS)
        return BlockMaker(Gatherer.of(self.store, self.history_length), pool)

    def __getitem__(self, index: IndexArray) -> Batch:
        return self._make(index).batch()


class _BatchSampler(Sampler[IndexArray]):
    """Yields the loader's current epoch as an array of row numbers per batch."""

    def __init__(self, loader: StoreLoader) -> None:
        self.loader = weakref.proxy(loader)

    def __iter__(self) -> Iterator[IndexArray]:
        order = self.loader.order()
        for part in self.loader.slices():
            yield order[part]

    def __len__(self) -> int:
        return len(self.loader)


class _ListSampler(_BatchSampler):
    """The same as lists, from which torch fetches one row at a time."""

    def __iter__(self) -> Iterator[Any]:
        for rows in super().__iter__():
            yield rows.tolist()


def _ignore_interrupts(_worker: int) -> None:
    """Ignore Ctrl-C, which reaches the whole group: the main process ends its workers itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class _DataLoaderLoader(StoreLoader):
    """The common part of `rows` and `batches`: a torch DataLoader with the cell's settings."""

    def __init__(self, store: Store, cell: Cell, **kwargs: Any) -> None:
        super().__init__(store, cell, **kwargs)
        # Its own random generator, so that iterating does not draw from the model's stream.
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
    """End a DataLoader iterator's workers now, not when it is garbage-collected."""
    shut_down = getattr(iterator, "_shutdown_workers", None)
    if shut_down is not None:
        shut_down()


class RowsLoader(_DataLoaderLoader):
    """The stock pattern: a row at a time, then the default collate."""

    def _make(self, options: dict[str, Any]) -> DataLoader[Any]:
        rows = _RowDataset(self.store, self.history_length)
        return DataLoader(
            rows, batch_sampler=_ListSampler(self), collate_fn=rows.collate, **options
        )


class BatchesLoader(_DataLoaderLoader):
    """A DataLoader whose data set takes a whole index array."""

    def _make(self, options: dict[str, Any]) -> DataLoader[Any]:
        return DataLoader(
            _BatchDataset(self.store, self.history_length, self.cell.batch_size),
            batch_size=None,
            sampler=_BatchSampler(self),
            **options,
        )
