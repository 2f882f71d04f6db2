"""The `thread` loader: a vectorised gather on background threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ctrkit.core.config import Cell
from ctrkit.ctr.data.buffers import Batch, BlockMaker, BlockPool, RowBlock
from ctrkit.ctr.data.gather import COLUMN_ROWS, HISTORIES, Gatherer
from ctrkit.ctr.data.prefetch import Pace, prefetch
from ctrkit.ctr.data.store import IndexArray, Store
from ctrkit.ctr.data.store_loader import StoreLoader

#: rows to gather and hand over at once; a block holds several small batches
BLOCK_ROWS = 8192
#: the least and most blocks ready ahead of the consumer, and the memory they may take
_LEAST_DEPTH, _MOST_DEPTH = 2, 8
_AHEAD_BYTES = 64_000_000


OnMade = Callable[[int, float, float], None]


class ThreadLoader(StoreLoader):
    """A vectorised gather on background threads: no processes, so nothing to deadlock.

    A batch's memory is reused when nobody holds a tensor of it, or of batches gathered with it.

    Attributes:
        on_made: called in a gathering thread for each batch, with its number in the iterator's
            epoch, and the begin and end of its gathering (`time.monotonic()`). Batches of a block
            are gathered at once; each gets its share of the block's time.

    Args:
        store: as for `StoreLoader`.
        cell: its `prefetch`, if given, fixes the number of batches gathered ahead.
        gather_threads: number of gathering threads; each uses one core. Two were measured to be
            slower than one.
        kwargs: as for `StoreLoader`.
    """

    def __init__(self, store: Store, cell: Cell, *, gather_threads: int = 1, **kwargs: Any) -> None:
        super().__init__(store, cell, **kwargs)
        self.gather_threads = gather_threads
        self.on_made: OnMade | None = None
        rows = -(-cell.batch_size // self.ranks)
        self._batches_per_block = min(max(1, BLOCK_ROWS // rows), cell.prefetch or BLOCK_ROWS)
        self._block_rows = rows * self._batches_per_block
        self._pool = BlockPool(
            self._block_rows, self.history_length, keep=2 * _MOST_DEPTH, pin=cell.pin
        )

    def _batches(self) -> Iterator[Batch]:
        slices = list(self.slices())
        blocks = [
            slices[i : i + self._batches_per_block]
            for i in range(0, len(slices), self._batches_per_block)
        ]
        order = self.order()
        made = prefetch(lambda: self._worker(order, blocks), len(blocks), self._pace())
        try:
            for parts, block in zip(blocks, made, strict=True):
                start = 0
                for part in parts:
                    stop = start + part.stop - part.start
                    yield block.batch(slice(start, stop))
                    start = stop
        finally:
            made.close()  # type: ignore[attr-defined]

    def _worker(
        self, order: IndexArray, blocks: Sequence[Sequence[slice]]
    ) -> Callable[[int], RowBlock]:
        """The function of one thread: gather the block of a number."""
        make = BlockMaker(Gatherer.of(self.store, self.history_length), self._pool)
        on_made = self.on_made

        def gather(number: int) -> RowBlock:
            began_s = time.monotonic()
            block = make(np.concatenate([order[part] for part in blocks[number]]))
            if on_made is not None:
                count = len(blocks[number])
                each_s = (time.monotonic() - began_s) / count
                for i in range(count):
                    batch = number * self._batches_per_block + i
                    on_made(batch, began_s + i * each_s, began_s + (i + 1) * each_s)
            return block

        return gather

    def _pace(self) -> Pace:
        if self.cell.prefetch:
            least = most = max(1, self.cell.prefetch // self._batches_per_block)
        else:
            row_bytes = 4 * (COLUMN_ROWS + HISTORIES * self.history_length)
            fitting = _AHEAD_BYTES // (row_bytes * self._block_rows)
            least, most = _LEAST_DEPTH, min(_MOST_DEPTH, max(_LEAST_DEPTH, fitting))
        return Pace(
            depth=least,
            least_depth=least,
            most_depth=most,
            threads=self.gather_threads,
        )
