from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ctrkit.data.gather import BATCH_KEYS, gather
from ctrkit.data.store import Store
from ctrkit.data.synthetic import generate_store


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
