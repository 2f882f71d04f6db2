"""The sample order: a pure function of seed and epoch, the same on every machine."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ctrkit.ctr.data.store import IndexArray

#: blocks whose rows are shuffled together
MIXED_BLOCKS = 16


def row_numbers(rows: range) -> IndexArray:
    """The numbers as an array: the largest thing that a loader holds, so int32 where that does."""
    if rows.stop < 2**31:
        return np.arange(rows.start, rows.stop, dtype=np.int32)
    return np.arange(rows.start, rows.stop, dtype=np.int64)


def epoch_order(rows: int, seed: int, epoch: int) -> IndexArray:
    """A permutation of 0 .. rows-1: the order of training rows in an epoch (from 1 on)."""
    order = row_numbers(range(rows))
    _random(seed, epoch).shuffle(order)
    return order


def block_order(rows: int, seed: int, epoch: int, block_rows: int) -> IndexArray:
    """A permutation of 0 .. rows-1 that reads a store by blocks, for one larger than memory.

    Blocks of `block_rows` neighbouring rows come in random order, and the rows of `MIXED_BLOCKS`
    blocks at a time are shuffled together: so many blocks have to be in memory, each is read once,
    as a whole. How well that mixes: a row's place in the epoch is as far from its place in the
    store as in a full shuffle (rows / 3 on average), but rows of one block all come within
    `MIXED_BLOCKS * block_rows` rows of the epoch. What differs from block to block (the time of
    day, say) so varies between such windows, with 1 / MIXED_BLOCKS of its variance between blocks;
    in a full shuffle it would not.
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
    """Batches of an epoch; the last one may be short unless it is dropped."""
    return rows // batch_size if drop_last else -(-rows // batch_size)


def batch_slices(
    rows: int, batch_size: int, *, first_batch: int = 0, drop_last: bool = False
) -> Iterator[slice]:
    """Where in an epoch's order each batch lies, from `first_batch` on."""
    for batch in range(first_batch, batch_count(rows, batch_size, drop_last=drop_last)):
        yield slice(batch * batch_size, min((batch + 1) * batch_size, rows))


def rank_part(part: slice, rank: int, ranks: int) -> slice:
    """What one rank takes of a global batch: contiguous, the first ranks one row more.

    The sizes are those of `np.array_split`; a rank gets an empty part where rows are too few.
    """
    least, more = divmod(part.stop - part.start, ranks)
    start = part.start + rank * least + min(rank, more)
    return slice(start, start + least + (rank < more))
