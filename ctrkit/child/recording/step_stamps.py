"""The stamps of each step: their columns, and the names of the windows that a step belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: The columns of `child_records.Stamps`.
STAMP_COLUMNS = (
    "epoch", "step", "window", "asked_s", "delivered_s", "done_s", "rows",
    "worker", "fetch_start_s", "fetch_end_s", "collate_end_s", "sent_s", "device_done_s",
)  # fmt: skip

WARMUP, THROUGHPUT, ATTRIBUTION = "warmup", "throughput", "attribution"
BOUNDARY, SECOND = "boundary", "second"
INTERRUPTED, OVER = "interrupted", "over"


def append_stamp(stamps: Any, values: Mapping[str, Any]) -> None:
    """Append one step's times to the columns; None to columns that `values` does not name."""
    for column in STAMP_COLUMNS:
        getattr(stamps, column).append(values.get(column))
