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

#: columns of every run; those of a workload's own metrics follow
FIXED_COLUMNS = ("epoch", "rows", "wall_s", "learning_rate")
#: stands before the name of a metric that is called like a fixed column
OWN = "metric_"

EpochRow = dict[str, float | None]
"""Every fixed column and every column of the file, None where there is no finite number."""

WrittenRow = Mapping[str, float | str | None]
"""A row as it is written: a metric that is no number is kept as text."""


@dataclass(frozen=True)
class OddValue:
    """What stands in a row of `epochs.csv` where a finite number was expected."""

    epoch: int
    column: str
    text: str


def own_column(name: str) -> str:
    """The column of a metric: its name, but that a fixed column stays what it is."""
    return f"{OWN}{name}" if name in FIXED_COLUMNS and name != "learning_rate" else name


def write_epochs(path: Path, rows: Sequence[WrittenRow], columns: Sequence[str] = ()) -> None:
    """Write the header and all rows; what a row does not have is left blank.

    Args:
        path: of the file.
        rows: the epochs.
        columns: the first ones, in their order; other columns of the rows follow as they appear.
            The fixed ones if left out.
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
    """The rows up to the first that is damaged; none where there is no file.

    A last line without its end was cut: even its last number may be a part of one.

    Raises:
        UsageError: a row is damaged, and the `whole` file was asked for.
    """
    return [
        dict.fromkeys(FIXED_COLUMNS) | {name: _number(text) for name, text in texts.items()}
        for texts in _rows(path, whole=whole)
    ]


def odd_values(path: Path) -> list[OddValue]:
    """Everything in the rows of the file that is neither blank nor a finite number."""
    return [
        OddValue(int(_number(texts["epoch"]) or 0), name, text)
        for texts in _rows(path, whole=False)
        for name, text in texts.items()
        if text and _number(text) is None
    ]


def _rows(path: Path, *, whole: bool) -> Iterator[dict[str, str]]:
    """The texts of each row that is not damaged."""
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
