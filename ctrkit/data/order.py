"""The sample order: a pure function of seed and epoch, whatever the machine configuration is."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ctrkit.data.store import Int64Array


def epoch_order(rows: int, seed: int, epoch: int) -> Int64Array:
    """A permutation of 0 .. rows-1, int64: the order of training rows in an epoch (from 1 on)."""
    key = np.random.SeedSequence([seed % 2**64, epoch])
    return np.random.Generator(np.random.Philox(key)).permutation(rows)


def batch_count(rows: int, batch_size: int, *, drop_last: bool = False) -> int:
    """Batches of an epoch; the last one may be short unless it is dropped."""
    return rows // batch_size if drop_last else -(-rows // batch_size)


def batch_slices(
    rows: int, batch_size: int, *, first_batch: int = 0, drop_last: bool = False
) -> Iterator[slice]:
    """Where in an epoch's order each batch lies, from `first_batch` on."""
    for batch in range(first_batch, batch_count(rows, batch_size, drop_last=drop_last)):
        yield slice(batch * batch_size, min((batch + 1) * batch_size, rows))
