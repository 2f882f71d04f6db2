"""What `ctrkit train` decides itself: the cell of a resumed run, and the epochs that it shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ctrkit.commands.resuming import with_axes
from ctrkit.commands.train import _EpochWatch
from ctrkit.config import Cell, make_cell
from ctrkit.errors import UsageError

THREAD = make_cell(loader="thread", threads=1)
WORKERS = make_cell(
    loader="batches", workers=2, start_method="fork", persistent=True, prefetch=4, threads=1
)


@pytest.mark.parametrize(
    ("cell", "axes", "expected"),
    [
        (THREAD, {}, THREAD),
        (WORKERS, {"threads": 3}, {"threads": 3}),
        (WORKERS, {"workers": 0}, make_cell(loader="batches", threads=1)),
        (WORKERS, {"workers": 0, "loader": "thread"}, THREAD),
        (THREAD, {"workers": 2}, make_cell(loader="batches", workers=2, threads=1)),
        (THREAD, {"loader": "rows"}, make_cell(loader="rows", threads=1)),
    ],
)
def test_axes_that_were_given_change_the_cell(
    cell: Cell, axes: dict[str, Any], expected: Cell | dict[str, Any]
) -> None:
    found = with_axes(cell, axes)
    if isinstance(expected, Cell):
        assert found == expected
    else:
        assert found == make_cell(**{**vars(cell), **expected})


def test_a_loader_without_processes_takes_no_workers() -> None:
    with pytest.raises(UsageError, match="loader thread has no worker processes"):
        with_axes(WORKERS, {"loader": "thread"})


class Display:
    def __init__(self) -> None:
        self.shown: list[int] = []

    def epoch_done(self, row: dict[str, Any]) -> None:
        self.shown.append(row["epoch"])


def test_epochs_that_are_trained_again_are_shown_again(tmp_path: Path) -> None:
    display = Display()
    watch = _EpochWatch(tmp_path / "epochs.csv", display, skip=0)  # type: ignore[arg-type]
    for rows in (0, 1, 2, 2, 1, 2):
        lines = ["epoch,val_auc", *(f"{epoch}," for epoch in range(1, rows + 1))]
        (tmp_path / "epochs.csv").write_text("\n".join(lines) + "\n")
        watch.look()
    assert display.shown == [1, 2, 2]
