"""MovieLens-100k, which is inside recbole's wheel, as a store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ctrkit.ctr.data.interactions import TableOptions, prepare_table
from ctrkit.ctr.data.store import Store


@pytest.mark.parametrize("split", ["time", "random"])
def test_movielens_100k(ratings: Path, tmp_path: Path, split: str) -> None:
    meta = prepare_table(
        ratings,
        tmp_path / "store",
        TableOptions.of(
            {"user": "user_id", "item": "item_id", "time": "timestamp", "label": "rating"},
            {},
            {"label_threshold": 4},
            split=split,
        ),
        memory_limit_bytes=10**9,
        threads=2,
    )
    store = Store.open(tmp_path / "store")
    assert len(store.impressions) == 100_000
    assert meta.vocabulary["user"] == 943 + 2
    assert meta.vocabulary["item"] == 1682 + 2
    assert meta.bad_rows == {}
    assert store.impressions[:, 5].sum() == meta.behaviors == 55_375
    if split == "time":
        train, validation = np.split(store.time_s, [meta.rows["train"]])
        assert train.max() < validation.min()
        assert 0.15 <= meta.rows["validation"] / 100_000 < 0.151
    else:
        assert abs(meta.rows["train"] - 100_000 * 14 / 17) < 2
    newest = store.impressions[:, 7] - 1
    seen = store.impressions[:, 7] > store.impressions[:, 6]
    assert (store.behavior_time_s[newest[seen]] < store.time_s[seen]).all()
