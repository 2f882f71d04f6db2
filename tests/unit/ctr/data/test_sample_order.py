from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ctrkit.ctr.data.sample_order import (
    MIXED_BLOCKS,
    batch_count,
    batch_slices,
    block_order,
    epoch_order,
    rank_part,
    row_numbers,
)

SEEDS = st.integers(-(2**63), 2**63 - 1)


@given(rows=st.integers(0, 300), seed=SEEDS, epoch=st.integers(0, 1000))
def test_order_is_a_permutation_and_pure(rows: int, seed: int, epoch: int) -> None:
    order = epoch_order(rows, seed, epoch)
    assert order.dtype == np.int32
    np.testing.assert_array_equal(np.sort(order), np.arange(rows))
    np.testing.assert_array_equal(order, epoch_order(rows, seed, epoch))


def test_the_order_is_the_one_of_older_runs() -> None:
    key = np.random.SeedSequence([42, 3])
    expected = np.random.Generator(np.random.Philox(key)).permutation(5000)
    np.testing.assert_array_equal(epoch_order(5000, 42, 3), expected)


def test_row_numbers_are_small_where_they_fit() -> None:
    np.testing.assert_array_equal(row_numbers(range(3, 6)), [3, 4, 5])
    assert row_numbers(range(2**31 - 3, 2**31 - 1)).dtype == np.int32
    large = row_numbers(range(2**31 - 1, 2**31 + 1))
    assert large.tolist() == [2**31 - 1, 2**31]


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


@given(rows=st.integers(0, 60), start=st.integers(0, 10), ranks=st.integers(1, 9))
def test_ranks_split_a_batch_as_numpy_does(rows: int, start: int, ranks: int) -> None:
    order = np.arange(100)
    part = slice(start, start + rows)
    for rank, expected in enumerate(np.array_split(order[part], ranks)):
        np.testing.assert_array_equal(order[rank_part(part, rank, ranks)], expected)


@given(rows=st.integers(0, 700), seed=SEEDS, epoch=st.integers(0, 9), block=st.integers(1, 90))
def test_a_block_shuffle_is_a_permutation_and_pure(
    rows: int, seed: int, epoch: int, block: int
) -> None:
    order = block_order(rows, seed, epoch, block)
    np.testing.assert_array_equal(np.sort(order), np.arange(rows))
    np.testing.assert_array_equal(order, block_order(rows, seed, epoch, block))


def test_a_block_shuffle_reads_each_block_once() -> None:
    rows, block = 10_000, 50
    order = block_order(rows, 1, 1, block)
    window = MIXED_BLOCKS * block
    seen: set[int] = set()
    for start in range(0, rows, window):
        blocks = set((order[start : start + window] // block).tolist())
        assert len(blocks) <= MIXED_BLOCKS
        assert not blocks & seen  # a window's blocks are done when it is
        seen |= blocks


def test_how_well_a_block_shuffle_mixes() -> None:
    rows, block = 200_000, 500
    places = np.arange(rows)
    for order in (epoch_order(rows, 3, 1), block_order(rows, 3, 1, block)):
        displacement = np.abs(order - places).mean() / (rows / 3)
        assert 0.9 < displacement < 1.1
        assert abs(np.corrcoef(order, places)[0, 1]) < 0.15
    order = block_order(rows, 3, 1, block)
    # a batch holds rows of all the blocks that are mixed, in equal shares
    for start in (0, 77 * 1000):
        counts = np.bincount(order[start : start + 1000] // block)
        assert (counts > 0).sum() >= MIXED_BLOCKS
        assert counts.max() < 3 * 1000 / MIXED_BLOCKS
    # what differs between blocks varies between windows with 1 / MIXED_BLOCKS of its variance
    level = np.random.default_rng(0).normal(size=rows // block)
    windows = level[order // block].reshape(-1, MIXED_BLOCKS * block).mean(axis=1)
    assert 0.3 < windows.var() * MIXED_BLOCKS / level.var() < 2.5


def test_block_orders_differ_by_seed_and_epoch() -> None:
    orders = [block_order(1000, seed, epoch, 30) for seed in (1, 2) for epoch in (1, 2)]
    assert len({order.tobytes() for order in orders}) == 4
