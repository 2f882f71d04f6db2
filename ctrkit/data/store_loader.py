"""What all loaders of a store share: the order, what is still to come, one iterator at a time."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
import torch

from ctrkit.config import Cell
from ctrkit.data.gather import BATCH_KEYS, gather
from ctrkit.data.order import batch_count, batch_slices, epoch_order
from ctrkit.data.store import Int64Array, Store

Batch = dict[str, torch.Tensor]


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


def batch_tensors(store: Store, indices: Int64Array, history_length: int) -> Batch:
    """The batch of these rows, on the host."""
    arrays = gather(store, indices, history_length)
    return {name: torch.from_numpy(arrays[name]) for name in BATCH_KEYS}
