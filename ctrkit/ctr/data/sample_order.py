"""The sample order: a pure function of seed and epoch, the same on every machine."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ctrkit.ctr.data.store import IndexArray

#: number of blocks whose rows are shuffled together
MIXED_BLOCKS = 16


def row_numbers(rows: range) -> IndexArray:
    """The numbers as an array; int32 if possible, as this is the largest thing a loader holds."""
    if rows.stop < 2**31:
        return np.arange(rows.start, rows.stop, dtype=np.int32)
    return np.arange(rows.start, rows.stop, dtype=np.int64)


def epoch_order(rows: int, seed: int, epoch: int) -> IndexArray:
    """A permutation of 0 .. rows-1: the order of training rows in an epoch, numbered from 1."""
    order = row_numbers(range(rows))
    _random(seed, epoch).shuffle(order)
    return order


def block_order(rows: int, seed: int, epoch: int, block_rows: int) -> IndexArray:
    """A permutation of 0 .. rows-1 that reads a store by blocks, for a store larger than memory.

    Blocks of `block_rows` neighbouring rows come in random order, and the rows of `MIXED_BLOCKS`
    blocks at a time are shuffled together. So memory has to hold that many blocks, and each block
    is read once, as a whole. How well this mixes: a row's place in the epoch is on average as far
    from its place in the store as in a full shuffle (rows / 3), but the rows of one block all come
    within `MIXED_BLOCKS * block_rows` rows of the epoch. So anything that differs from block to
    block (the time of day, say) also varies between such windows, with 1 / MIXED_BLOCKS of its
    variance between blocks. In a full shuffle it would not.
    """
    order = row_numbers(range(rows))
    random = _random(seed, epoch)
    starts = random.permutation(-(-rows // block_rows)) * block_rows
    place = 0
    mixed = np.empty_like(order)
    for first in range(0, len(starts), MIXED_BLOCKS):
        blocks = [order[s : s + block_rows] for s in starts[first : first + MIXED_BLOCKS]]
        window = mixed[place : place + sum(map(len, blocks))]
        np.concatenate(blocks, out=window)
        random.shuffle(window)
        place += len(window)
    return mixed


def _random(seed: int, epoch: int) -> np.random.Generator:
    key = np.random.SeedSequence([seed % 2**64, epoch])
    return np.random.Generator(np.random.Philox(key))


def batch_count(rows: int, batch_size: int, *, drop_last: bool = False) -> int:
    """Number of batches in an epoch; the last one may be short unless it is dropped."""
    return rows // batch_size if drop_last else -(-rows // batch_size)


def batch_slices(
    rows: int, batch_size: int, *, first_batch: int = 0, drop_last: bool = False
) -> Iterator[slice]:
    """The slice of an epoch's order that each batch takes, from `first_batch` on."""
    for batch in range(first_batch, batch_count(rows, batch_size, drop_last=drop_last)):
        yield slice(batch * batch_size, min((batch + 1) * batch_size, rows))


def rank_part(part: slice, rank: int, ranks: int) -> slice:
    """A rank's part of a global batch: contiguous, the first ranks get one row more.

    The sizes are those of `np.array_split`; if there are too few rows, a rank's part is empty.
    """
    least, more = divmod(part.stop - part.start, ranks)
    start = part.start + rank * least + min(rank, more)
    return slice(start, start + least + (rank < more))
