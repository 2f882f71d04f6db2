"""The cell of a resumed run."""

from __future__ import annotations

from typing import Any

import pytest

from ctrkit.commands.resuming import with_axes
from ctrkit.core.config import Cell, make_cell
from ctrkit.core.errors import UsageError

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
