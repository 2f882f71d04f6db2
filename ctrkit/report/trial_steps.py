"""Reads the batches of trials from `stamps.parquet`, for the timelines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctrkit.core.files import read_table
from ctrkit.report.charts.timeline_chart import Step

_TIMES = ("asked_s", "delivered_s", "done_s")
_MADE = ("fetch_start_s", "fetch_end_s", "collate_end_s", "sent_s")


@dataclass(frozen=True)
class TrialSteps:
    """The steps of one trial, in order."""

    trial: str
    cell_id: str
    steps: tuple[Step, ...]


def read_steps(path: Path, cell_ids: Sequence[str]) -> list[TrialSteps]:
    """The last whole-step trial of each cell in `stamps.parquet`; cells without one are left out.

    Raises:
        UsageError: the file is damaged.
        KeyError, ValueError: it lacks a column, or has a value that is no time.
    """
    if not path.is_file() or not cell_ids:
        return []
    import pyarrow.compute as pc

    table = read_table(path)
    found = []
    for cell_id in cell_ids:
        chosen = pc.and_(pc.equal(table["cell_id"], cell_id), pc.equal(table["kind"], "full"))
        rows = table.filter(chosen)
        if rows.num_rows:
            last = rows["trial"][-1].as_py()
            rows = rows.filter(pc.equal(rows["trial"], last))
            found.append(TrialSteps(str(last), cell_id, _steps(rows.to_pydict())))
    return found


def _steps(columns: dict[str, list[Any]]) -> tuple[Step, ...]:
    """The steps in these columns, with who made each batch if the trial has that."""
    count = len(columns["window"])
    workers, *made = (columns.get(name) or [None] * count for name in ("worker", *_MADE))
    moments = zip(*made, strict=True)
    return tuple(
        Step(float(asked), float(delivered), float(done), str(window), worker, _rising(moment))
        for asked, delivered, done, window, worker, moment in zip(
            *(columns[name] for name in (*_TIMES, "window")), workers, moments, strict=True
        )
    )


def _rising(moments: Sequence[Any]) -> tuple[float, ...]:
    """The moments up to the first one that is unknown or earlier than its predecessor."""
    known: list[float] = []
    for moment in moments:
        if moment is None or (known and moment < known[-1]):
            break
        known.append(float(moment))
    return tuple(known) if len(known) > 1 else ()
