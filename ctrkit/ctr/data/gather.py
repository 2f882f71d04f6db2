"""Gathers the arrays of a batch from row numbers, vectorised, with numpy alone.

A history is a slice of the behaviours. All slices of length L form one array without a copy: a view
whose elements are windows of L events, each window starting one event after the previous one.
Taking from this view copies whole histories and needs no matrix of positions. Events that do not
belong to the history are then cleared by a mask. The mask is also a window: of L ones followed by L
zeros.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ctrkit.ctr.data.store import IMPRESSION_COLUMNS, PADDING_ID, IndexArray, Int32Array, Store

#: columns of an impression that a batch contains unchanged, in this order
ID_COLUMNS = ("user", "item", "category", "hour", "weekday")
BATCH_KEYS = (*ID_COLUMNS, "label", "history_item", "history_category", "history_length")
COLUMN = {name: index for index, name in enumerate(IMPRESSION_COLUMNS)}

#: rows of the array that `Gatherer.fill` writes: the ids, the label's bits, the length
LABEL_ROW = len(ID_COLUMNS)
LENGTH_ROW = LABEL_ROW + 1
COLUMN_ROWS = LENGTH_ROW + 1
HISTORIES = 2

#: bytes of windows to take at once, so that they are still in the cache when they are masked
_CHUNK_BYTES = 100_000
assert tuple(IMPRESSION_COLUMNS[: len(ID_COLUMNS)]) == ID_COLUMNS
assert PADDING_ID == 0, "a mask clears to 0"


class Gatherer:
    """Writes batches of a store's rows into given arrays; use it in one thread at a time.

    Args:
        impressions: int32 (rows, 8), as `Store.impressions`.
        behavior_item: int32 (events,).
        behavior_category: int32 (events,).
        history_length: L, the most events of a history; the latest ones are taken.
    """

    def __init__(
        self,
        impressions: Int32Array,
        behavior_item: Int32Array,
        behavior_category: Int32Array,
        history_length: int,
    ) -> None:
        self.history_length = history_length
        self._impressions = impressions
        self._windows = [
            _Windows(column, history_length) for column in (behavior_item, behavior_category)
        ]
        self._chunk = max(16, _CHUNK_BYTES // (4 * history_length))
        ones_then_zeros = np.repeat(np.array([-1, 0], np.int32), history_length)
        self._masks = _windows_of(ones_then_zeros, history_length)
        self._rows = np.empty((0, len(IMPRESSION_COLUMNS)), np.int32)
        self._begin = np.empty(0, np.intp)

    @classmethod
    def of(cls, store: Store, history_length: int) -> Gatherer:
        """A gatherer of a store's memory-mapped arrays."""
        columns = (store.impressions, store.behavior_item, store.behavior_category)
        return cls(*columns, history_length)

    def fill(self, indices: IndexArray, columns: Int32Array, histories: Int32Array) -> None:
        """Write a batch of B rows; a row number out of range means the nearest row.

        Args:
            indices: (B,) row numbers.
            columns: output, (COLUMN_ROWS, B): the ids, the bits of the label as float32, and the
                number of real events.
            histories: output, (2, B, L): items and categories, oldest first, padded on the right.
        """
        begin = self.fill_columns(indices, columns)
        length = columns[LENGTH_ROW]
        for start in range(0, len(indices), self._chunk):
            part = slice(start, start + self._chunk)
            mask = self._masks[self.history_length - length[part]]
            for windows, out in zip(self._windows, histories, strict=True):
                np.bitwise_and(
                    windows.take(begin[part]), _events(mask, self.history_length), out=out[part]
                )

    def fill_columns(self, indices: IndexArray, columns: Int32Array) -> npt.NDArray[np.intp]:
        """Write only the columns; returns where the histories begin, valid until the next call."""
        count = len(indices)
        if len(self._rows) < count:
            self._rows = np.empty((count, len(IMPRESSION_COLUMNS)), np.int32)
            self._begin = np.empty(count, np.intp)
        rows, begin = self._rows[:count], self._begin[:count]
        # the default mode, "raise", would write into a buffer first
        np.take(self._impressions, indices, axis=0, out=rows, mode="clip")
        end = rows[:, COLUMN["history_end"]]
        columns[:LABEL_ROW] = rows[:, :LABEL_ROW].T
        columns[LABEL_ROW].view(np.float32)[:] = rows[:, COLUMN["label"]]
        np.subtract(end, self.history_length, out=begin)
        np.maximum(begin, rows[:, COLUMN["history_begin"]], out=begin)
        np.subtract(end, begin, out=columns[LENGTH_ROW], casting="same_kind")
        return begin


class _Windows:
    """Every window of `length` events of a column; events after its end read as 0."""

    def __init__(self, column: Int32Array, length: int) -> None:
        behind = np.zeros(length, np.int32)
        if len(column) < length:
            column = np.concatenate([column, behind])
        self.length = length
        self.last = len(column) - length
        self._windows = _windows_of(column, length)
        self._late = _windows_of(np.concatenate([column[self.last :], behind]), length)

    def take(self, begin: npt.NDArray[np.intp]) -> Int32Array:
        """The windows that begin at these positions, (B,) -> (B, length)."""
        if len(begin) == 0 or begin.max() <= self.last:
            return _events(self._windows[begin], self.length)
        taken = self._windows[np.minimum(begin, self.last)]
        late = begin > self.last
        taken[late] = self._late[begin[late] - self.last]
        return _events(taken, self.length)


def _windows_of(column: Int32Array, length: int) -> npt.NDArray[np.void]:
    """A view of a contiguous column (n,): its n - length + 1 overlapping windows, each one item."""
    return np.ndarray(
        len(column) - length + 1, np.dtype((np.void, 4 * length)), column, strides=(4,)
    )


def _events(windows: npt.NDArray[np.void], length: int) -> Int32Array:
    return windows.view(np.int32).reshape(len(windows), length)


def gather(store: Store, indices: IndexArray, history_length: int) -> dict[str, npt.NDArray[Any]]:
    """A batch of the given rows, in new arrays.

    Args:
        store: the store with the rows.
        indices: (B,) row numbers in `store.impressions`.
        history_length: L, the most events of a history; the latest ones are taken.

    Returns:
        `user`, `item`, `category`, `hour`, `weekday` int32 (B,); `label` float32 (B,);
        `history_item`, `history_category` int32 (B, L), oldest first, padded on the right with 0;
        `history_length` int32 (B,), how many of the L are real.

    Raises:
        IndexError: the store has no row of this number.
    """
    rows = len(store.impressions)
    if len(indices) and not 0 <= indices.min() <= indices.max() < rows:
        raise IndexError(f"row numbers {indices.min()} .. {indices.max()} of a store of {rows}")
    columns = np.empty((COLUMN_ROWS, len(indices)), np.int32)
    histories = np.empty((HISTORIES, len(indices), history_length), np.int32)
    Gatherer.of(store, history_length).fill(indices, columns, histories)
    batch: dict[str, npt.NDArray[Any]] = dict(zip(ID_COLUMNS, columns, strict=False))
    batch["label"] = columns[LABEL_ROW].view(np.float32)
    batch["history_item"], batch["history_category"] = histories
    batch["history_length"] = columns[LENGTH_ROW]
    return batch
