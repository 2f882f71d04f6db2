"""From row numbers to the arrays of a batch: vectorised, numpy alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ctrkit.data.store import IMPRESSION_COLUMNS, PADDING_ID, Int64Array, Store

#: columns of an impression that go into a batch as they are
ID_COLUMNS = ("user", "item", "category", "hour", "weekday")
BATCH_KEYS = (*ID_COLUMNS, "label", "history_item", "history_category", "history_length")
COLUMN = {name: index for index, name in enumerate(IMPRESSION_COLUMNS)}


def gather(store: Store, indices: Int64Array, history_length: int) -> dict[str, npt.NDArray[Any]]:
    """A batch of the given rows.

    Args:
        store: where the rows are.
        indices: (B,) row numbers in `store.impressions`.
        history_length: L, the most events of a history; the last ones are taken.

    Returns:
        `user`, `item`, `category`, `hour`, `weekday` int32 (B,); `label` float32 (B,);
        `history_item`, `history_category` int32 (B, L), oldest first, padded on the right with 0;
        `history_length` int32 (B,), how many of the L are real.
    """
    rows = store.impressions[indices]
    end = rows[:, COLUMN["history_end"]].astype(np.int64)
    begin = np.maximum(rows[:, COLUMN["history_begin"]], end - history_length)
    length = end - begin
    slot = np.arange(history_length)
    real = slot < length[:, None]
    position = (begin[:, None] + slot)[real]
    batch: dict[str, npt.NDArray[Any]] = {
        name: np.ascontiguousarray(rows[:, COLUMN[name]]) for name in ID_COLUMNS
    }
    batch["label"] = rows[:, COLUMN["label"]].astype(np.float32)
    for name, column in (
        ("history_item", store.behavior_item),
        ("history_category", store.behavior_category),
    ):
        padded = np.full(real.shape, PADDING_ID, np.int32)
        padded[real] = column[position]
        batch[name] = padded
    batch["history_length"] = length.astype(np.int32)
    return batch
