"""Batches from `stamps.parquet`, with and without their makers."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from ctrkit.core.files import write_table
from ctrkit.report.trial_steps import read_steps

PLAIN: dict[str, list[Any]] = {
    "trial": ["004-full-a", "004-full-a", "009-full-a", "009-full-a"],
    "cell_id": ["a"] * 4,
    "kind": ["full"] * 4,
    "window": ["warmup", "throughput"] * 2,
    "asked_s": [0.0, 1.0, 0.0, 2.0],
    "delivered_s": [0.5, 1.5, 1.0, 3.0],
    "done_s": [1.0, 2.0, 2.0, 4.0],
}
MADE: dict[str, list[Any]] = {
    "worker": [None, None, 0, 1],
    "fetch_start_s": [None, None, 0.1, 0.2],
    "fetch_end_s": [None, None, 0.4, None],
    "collate_end_s": [None, None, 0.5, None],
    "sent_s": [None, None, 0.3, None],
}


def test_the_last_trial_of_a_cell_without_who_made_its_batches(tmp_path: Path) -> None:
    write_table(tmp_path / "stamps.parquet", pa.table(PLAIN))
    (one,) = read_steps(tmp_path / "stamps.parquet", ["a", "b"])
    assert (one.trial, one.cell_id) == ("009-full-a", "a")
    assert [(s.asked_s, s.delivered_s, s.done_s) for s in one.steps] == [(0, 1, 2), (2, 3, 4)]
    assert [(s.worker, s.made_s) for s in one.steps] == [(None, ()), (None, ())]
    assert read_steps(tmp_path / "none.parquet", ["a"]) == []


def test_moments_up_to_the_first_that_is_not_known_or_lies_before(tmp_path: Path) -> None:
    write_table(tmp_path / "stamps.parquet", pa.table(PLAIN | MADE))
    (one,) = read_steps(tmp_path / "stamps.parquet", ["a"])
    assert [s.worker for s in one.steps] == [0, 1]
    assert one.steps[0].made_s == (0.1, 0.4, 0.5)  # what was sent before it was made is left out
    assert one.steps[1].made_s == ()  # a beginning alone is no stretch of time
