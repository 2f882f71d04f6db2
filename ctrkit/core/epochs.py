"""`epochs.csv`: one row per finished epoch. The child writes it; both sides read it."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ctrkit.core.errors import UsageError
from ctrkit.core.files import write_atomically

EPOCHS = "epochs.csv"

#: Columns of every run; columns of a workload's own metrics follow.
FIXED_COLUMNS = ("epoch", "rows", "wall_s", "learning_rate")
#: Prefix for a metric with the name of a fixed column.
OWN = "metric_"

EpochRow = dict[str, float | None]
"""A row by column, fixed columns included; None for a value that is not a finite number."""

WrittenRow = Mapping[str, float | str | None]
"""A row to write; a metric that is not a number is kept as text."""


@dataclass(frozen=True)
class OddValue:
    """A value in `epochs.csv` that is not a finite number."""

    epoch: int
    column: str
    text: str


def own_column(name: str) -> str:
    """The column of a metric: its name, with a prefix if a fixed column has that name."""
    return f"{OWN}{name}" if name in FIXED_COLUMNS and name != "learning_rate" else name


def write_epochs(path: Path, rows: Sequence[WrittenRow], columns: Sequence[str] = ()) -> None:
    """Write the header and all rows; values that a row lacks are left blank.

    Args:
        path: the file.
        rows: one per epoch.
        columns: the first columns, in order; the fixed columns if left out. Other columns of the
            rows follow as they appear.
    """
    names = list(dict.fromkeys([*(columns or FIXED_COLUMNS), *(name for r in rows for name in r)]))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow([_cell(row.get(name)) for name in names])
    write_atomically(path, text.getvalue().encode())


def _cell(value: float | str | None) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else repr(value)


def read_epochs(path: Path, *, whole: bool = False) -> list[EpochRow]:
    """The rows up to the first damaged one; empty if there is no file.

    A last line without a line end was cut off: even its last number may be incomplete.

    Raises:
        UsageError: a row is damaged, and `whole` is set.
    """
    return [
        dict.fromkeys(FIXED_COLUMNS) | {name: _number(text) for name, text in texts.items()}
        for texts in _rows(path, whole=whole)
    ]


def odd_values(path: Path) -> list[OddValue]:
    """All values in the file that are neither blank nor a finite number."""
    return [
        OddValue(int(_number(texts["epoch"]) or 0), name, text)
        for texts in _rows(path, whole=False)
        for name, text in texts.items()
        if text and _number(text) is None
    ]


def _rows(path: Path, *, whole: bool) -> Iterator[dict[str, str]]:
    """The undamaged rows, each as texts by column."""
    if not path.is_file():
        return
    text, end, cut = path.read_text("utf-8", errors="replace").rpartition("\n")
    number = 1
    for texts in csv.DictReader(io.StringIO(text + end)):
        if None in texts or None in texts.values() or _number(texts.get("epoch")) is None:
            cut = ",".join(str(value) for value in texts.values())
            break
        yield texts
        number += 1
    if whole and cut:
        raise UsageError(f"{path}: not an epochs.csv of ctrkit: row {number} is '{cut}'")


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    if not math.isfinite(value):
        return None
    return int(value) if value.is_integer() and abs(value) < 2**53 else value
