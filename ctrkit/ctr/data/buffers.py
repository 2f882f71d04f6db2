"""Reuses the memory of batches, but only once nobody holds the batch any more."""

from __future__ import annotations

import weakref
from collections import deque
from dataclasses import dataclass

import numpy as np
import torch

from ctrkit.ctr.data.gather import (
    COLUMN_ROWS,
    HISTORIES,
    ID_COLUMNS,
    LABEL_ROW,
    LENGTH_ROW,
    Gatherer,
)
from ctrkit.ctr.data.store import IndexArray, Int32Array

Batch = dict[str, torch.Tensor]


class BufferPool:
    """Lends int32 arrays, and reuses an array's memory when the array is gone.

    Fresh memory costs more than a gather, because the system provides it page by page. So the pool
    keeps memory, but makes a new array each time. Everything made from that array (views, tensors,
    views of those) holds the array. A weak reference tells when the last of them is gone; until
    then they own the memory, even if the pool is gone. So it is always safe to keep batches: that
    only uses more memory.

    Threads may share a pool.

    Args:
        items: the most int32 values in an array.
        keep: number of unused arrays whose memory is kept.
    """

    def __init__(self, items: int, keep: int) -> None:
        self.items = items
        self._free: deque[memoryview] = deque(maxlen=keep)

    def lend(self, *shape: int) -> Int32Array:
        """An array of this shape, with arbitrary contents."""
        count = int(np.prod(shape))
        if count > self.items or count == 0:
            return np.empty(shape, np.int32)
        try:
            memory = self._free.pop()
        except IndexError:
            memory = np.empty(self.items, np.int32).data
        # a numpy view refers to the array that it comes from, not to that array's memory
        lent = np.frombuffer(memory, np.int32)
        weakref.finalize(lent, self._free.append, memory).atexit = False
        return lent[:count].reshape(shape)


@dataclass(frozen=True)
class RowBlock:
    """Rows side by side, from which batches are cut.

    `columns` (COLUMN_ROWS, rows) and `histories` (2, rows, L) are int32, as `Gatherer.fill` writes
    them. They are separate memory, so that keeping an epoch's labels does not keep its histories.
    """

    columns: torch.Tensor
    histories: torch.Tensor

    def batch(self, part: slice = slice(None)) -> Batch:
        """The batch of these rows, or of all rows: views, without a copy."""
        columns = self.columns[:, part].unbind()
        item, category = self.histories[:, part].unbind()
        batch = dict(zip(ID_COLUMNS, columns, strict=False))
        batch["label"] = columns[LABEL_ROW].view(torch.float32)
        batch["history_item"], batch["history_category"] = item, category
        batch["history_length"] = columns[LENGTH_ROW]
        return batch


class BlockPool:
    """Lends blocks of up to `rows` rows with histories of `history_length` events.

    Pinned memory comes from torch, which reuses it itself, and knows when an asynchronous copy to
    the device is done.
    """

    def __init__(self, rows: int, history_length: int, *, keep: int, pin: bool = False) -> None:
        self.history_length, self.pin = history_length, pin
        self._columns = BufferPool(COLUMN_ROWS * rows, keep)
        self._histories = BufferPool(HISTORIES * rows * history_length, keep)

    def lend(self, rows: int) -> RowBlock:
        """A block of so many rows, with arbitrary contents."""
        shapes = (COLUMN_ROWS, rows), (HISTORIES, rows, self.history_length)
        if self.pin:
            return RowBlock(*(torch.empty(s, dtype=torch.int32, pin_memory=True) for s in shapes))
        columns, histories = (
            torch.from_numpy(pool.lend(*shape))
            for pool, shape in zip((self._columns, self._histories), shapes, strict=True)
        )
        return RowBlock(columns, histories)


class BlockMaker:
    """Gathers blocks on the host, one after the other; use it in one thread at a time.

    Args:
        gatherer: gathers the rows.
        pool: lends the memory; threads may share it.
    """

    def __init__(self, gatherer: Gatherer, pool: BlockPool) -> None:
        self._gatherer, self._pool = gatherer, pool

    def __call__(self, indices: IndexArray) -> RowBlock:
        """The block of these row numbers."""
        block = self._pool.lend(len(indices))
        self._gatherer.fill(indices, block.columns.numpy(), block.histories.numpy())
        return block
