from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrkit.ctr.data.gather import BATCH_KEYS, COLUMN_ROWS, Gatherer, gather
from ctrkit.ctr.data.store import Store
from ctrkit.ctr.data.synthetic import generate_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    out: Path = tmp_path_factory.mktemp("gather") / "store"
    generate_store(out, rows=600, users=60, items=80, seed=3)
    return Store.open(out)


@pytest.mark.parametrize("length", [1, 7, 50, 600])
def test_a_batch_against_plain_loops(store: Store, length: int) -> None:
    indices = np.random.default_rng(0).permutation(600)[:101]
    batch = gather(store, indices, length)
    assert tuple(batch) == BATCH_KEYS
    for b, index in enumerate(indices):
        user, item, category, hour, weekday, label, begin, end = store.impressions[index].tolist()
        plain = (user, item, category, hour, weekday, label)
        names = ("user", "item", "category", "hour", "weekday", "label")
        assert tuple(batch[name][b] for name in names) == plain
        events = list(range(begin, end))[-length:]
        padding = [0] * (length - len(events))
        assert batch["history_length"][b] == len(events)
        expected = store.behavior_item[events].tolist() + padding if events else padding
        assert batch["history_item"][b].tolist() == expected
        expected = store.behavior_category[events].tolist() + padding if events else padding
        assert batch["history_category"][b].tolist() == expected


def test_types_and_shapes(store: Store) -> None:
    batch = gather(store, np.arange(5), 9)
    for name, array in batch.items():
        assert array.dtype == (np.float32 if name == "label" else np.int32)
        wide = name in ("history_item", "history_category")
        assert array.shape == ((5, 9) if wide else (5,))
        assert array.flags.c_contiguous
        assert array.flags.writeable


def test_an_empty_batch(store: Store) -> None:
    batch = gather(store, np.arange(0), 4)
    assert batch["history_item"].shape == (0, 4)


@given(data=st.data(), length=st.integers(1, 9), events=st.integers(0, 30))
def test_histories_at_the_end_of_the_column(data: st.DataObject, length: int, events: int) -> None:
    """Windows that reach behind the last event, and columns shorter than a window."""
    item = np.arange(2, 2 + events, dtype=np.int32)
    slices = data.draw(st.lists(st.tuples(*[st.integers(0, events)] * 2).map(sorted), max_size=40))
    rows = np.zeros((len(slices), 8), np.int32)
    rows[:, 6:] = np.reshape(slices, (-1, 2))
    gatherer = Gatherer(rows, item, -item, length)
    columns = np.full((COLUMN_ROWS, len(rows)), 99, np.int32)
    histories = np.full((2, len(rows), length), 99, np.int32)
    gatherer.fill(np.arange(len(rows)), columns, histories)
    for row, (begin, end) in enumerate(slices):
        expected = item[max(begin, end - length) : end].tolist()
        expected += [0] * (length - len(expected))
        assert histories[0, row].tolist() == expected
        assert (-histories[1, row]).tolist() == expected


def test_a_gatherer_may_be_used_for_batches_of_any_size(store: Store) -> None:
    gatherer = Gatherer.of(store, 7)
    for count in (3, 400, 0, 50):  # more than one chunk of windows, too
        indices = np.arange(count) * 13 % 600
        columns = np.empty((COLUMN_ROWS, count), np.int32)
        histories = np.empty((2, count, 7), np.int32)
        gatherer.fill(indices.astype(np.int32), columns, histories)
        expected = gather(store, indices, 7)
        np.testing.assert_array_equal(columns[0], expected["user"])
        np.testing.assert_array_equal(histories[1], expected["history_category"])


@pytest.mark.parametrize("index", [-1, 600])
def test_rows_that_the_store_does_not_have(store: Store, index: int) -> None:
    with pytest.raises(IndexError, match="of a store of 600"):
        gather(store, np.array([0, index]), 4)
