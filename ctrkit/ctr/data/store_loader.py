"""What all loaders of a store share: the order, the batches left, one iterator at a time."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator

from ctrkit.core.config import Cell
from ctrkit.ctr.data.buffers import Batch
from ctrkit.ctr.data.sample_order import (
    batch_count,
    batch_slices,
    block_order,
    epoch_order,
    rank_part,
    row_numbers,
)
from ctrkit.ctr.data.store import IndexArray, Store


class StoreLoader(ABC):
    """Batches of one split of a store, in the order of a seed: the base of all four loaders.

    The train split is shuffled anew each epoch; validation keeps the order of the store. There is
    one iterator at a time: a new `iter()` ends the previous one. `len()` is the number of batches
    of a whole epoch.

    With several `ranks` (processes that train together), `cell.batch_size` and `len()` refer to the
    global batches; this loader yields `rank`'s contiguous part of each, as `rank_part` says. With
    `block_rows`, rows are shuffled as `block_order` does, not all together.
    """

    #: `len()` is exact: it is the number of batches in the order
    length_is_exact = True
    #: batches before `first_batch` are never read
    skips_unread = True

    def __init__(
        self,
        store: Store,
        cell: Cell,
        *,
        split: str,
        seed: int,
        history_length: int,
        drop_last: bool = False,
        rank: int = 0,
        ranks: int = 1,
        block_rows: int | None = None,
    ) -> None:
        if not 0 <= rank < ranks:
            raise ValueError(f"rank {rank} of {ranks} ranks")
        self.store = store
        self.cell = cell
        self.split = split
        self.seed = seed
        self.history_length = history_length
        self.drop_last = drop_last
        self.rank, self.ranks = rank, ranks
        self.block_rows = block_rows
        self.rows = store.rows(split)
        self._epoch = 1
        self._first_batch = 0
        self._current: weakref.ref[Iterator[Batch]] | None = None

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Choose the order of the next `iter()`, and the batch that it begins with."""
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
        """End the iterator and everything that works for it. May be called more than once."""
        self._end_current()

    def order(self) -> IndexArray:
        """Row numbers in `store.impressions` in the order of the epoch, (rows of the split,)."""
        if self.split != "train":
            return row_numbers(self.rows)
        if self.block_rows is None:
            return epoch_order(len(self.rows), self.seed, self._epoch)
        return block_order(len(self.rows), self.seed, self._epoch, self.block_rows)

    def slices(self) -> Iterator[slice]:
        """The slices of `order()` with this rank's parts of the remaining batches."""
        batches = batch_slices(
            len(self.rows),
            self.cell.batch_size,
            first_batch=self._first_batch,
            drop_last=self.drop_last,
        )
        return (rank_part(batch, self.rank, self.ranks) for batch in batches)

    @abstractmethod
    def _batches(self) -> Iterator[Batch]:
        """A generator of the epoch's batches that cleans up when it is closed."""

    def _end_current(self) -> None:
        current = self._current() if self._current is not None else None
        self._current = None
        if current is not None:
            current.close()  # type: ignore[attr-defined]
