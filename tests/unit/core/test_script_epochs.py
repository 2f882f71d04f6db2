"""Epochs of a script, as the observer writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ctrkit.core.script_epochs import epoch_rows, read_script_epochs


def line(began_s: float, ended_s: float | None, validation_s: float = 0.0) -> dict[str, Any]:
    return {"began_s": began_s, "ended_s": ended_s, "validation_s": validation_s,
            "checkpoint_s": 0.0, "rows": 8}  # fmt: skip


def walls(*lines: dict[str, Any]) -> list[float | None]:
    return [row["wall_s"] for row in epoch_rows(lines)]


def test_an_epoch_lasts_until_the_next_one_begins() -> None:
    assert walls(line(0, 10, 2), line(13, 23, 2)) == [13, 12]


def test_an_epoch_that_is_over_says_so_itself() -> None:
    assert walls({**line(0, 10, 2), "over_s": 14.0}) == [14]


def test_validation_in_the_midst_is_not_counted_twice() -> None:
    assert walls(line(0, 10, 4), line(10.1, 20, 4)) == pytest.approx([10.1, 9.9])


def test_one_epoch_has_its_validation_after_it() -> None:
    assert walls(line(0, 10, 2)) == [12]
    assert walls(line(0, None)) == [None]


def test_half_a_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "script-epochs.jsonl"
    assert read_script_epochs(path) == []
    path.write_text('{"began_s": 1.0, "ended_s": 2.0}\n{"began_s": 3')
    assert read_script_epochs(path) == [{"began_s": 1.0, "ended_s": 2.0}]
    path.write_text('{"began_s": "now"}\n')
    assert read_script_epochs(path) == []
