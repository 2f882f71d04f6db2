from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ctrkit.data.order import batch_count, batch_slices, epoch_order

SEEDS = st.integers(-(2**63), 2**63 - 1)


@given(rows=st.integers(0, 300), seed=SEEDS, epoch=st.integers(0, 1000))
def test_order_is_a_permutation_and_pure(rows: int, seed: int, epoch: int) -> None:
    order = epoch_order(rows, seed, epoch)
    assert order.dtype == np.int64
    np.testing.assert_array_equal(np.sort(order), np.arange(rows))
    np.testing.assert_array_equal(order, epoch_order(rows, seed, epoch))


def test_epochs_and_seeds_differ() -> None:
    orders = [epoch_order(1000, seed, epoch) for seed in (1, 2) for epoch in (1, 2)]
    assert len({order.tobytes() for order in orders}) == 4


def test_order_leaves_numpys_global_stream_alone() -> None:
    before = np.random.get_state()[1].copy()  # type: ignore[index, union-attr]
    epoch_order(100, 1, 1)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # type: ignore[index, arg-type]


@given(
    rows=st.integers(0, 200),
    batch_size=st.integers(1, 50),
    first_batch=st.integers(0, 10),
    drop_last=st.booleans(),
)
def test_slices_cover_the_epoch_once(
    rows: int, batch_size: int, first_batch: int, drop_last: bool
) -> None:
    every = np.arange(rows)
    whole = [every[part] for part in batch_slices(rows, batch_size, drop_last=drop_last)]
    assert len(whole) == batch_count(rows, batch_size, drop_last=drop_last)
    assert all(len(batch) == batch_size for batch in whole[:-1])
    covered = rows - rows % batch_size if drop_last else rows
    np.testing.assert_array_equal(np.concatenate([[], *whole]), every[:covered])
    later = batch_slices(rows, batch_size, first_batch=first_batch, drop_last=drop_last)
    np.testing.assert_array_equal(
        np.concatenate([[], *(every[part] for part in later)]),
        every[first_batch * batch_size : covered],
    )
