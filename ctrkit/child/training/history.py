"""`epochs.csv`: a row per finished epoch, rewritten whole each time."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from ctrkit.core.errors import UsageError
from ctrkit.core.files import write_atomically
from ctrkit.core.records import EPOCH_COLUMNS

Row = dict[str, float | int | None]


def write_epochs(path: Path, rows: Sequence[Mapping[str, float | int | None]]) -> None:
    """Write the header and all rows; what a row does not have, and NaN, is left blank."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(EPOCH_COLUMNS)
    for row in rows:
        writer.writerow([_cell(row.get(column)) for column in EPOCH_COLUMNS])
    write_atomically(path, text.getvalue().encode())


def _cell(value: float | int | None) -> str:
    return "" if value is None or math.isnan(value) else repr(value)


def read_epochs(path: Path) -> list[Row]:
    """The rows of `epochs.csv`; blanks are None. Empty where there is no file.

    Raises:
        UsageError: a value that is no number.
    """
    if not path.is_file():
        return []
    rows: list[Row] = []
    with open(path, newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            try:
                row: Row = {key: float(text) if text else None for key, text in line.items()}
                row |= {key: int(line[key]) for key in ("epoch", "rows")}
            except (ValueError, KeyError, TypeError) as error:
                raise UsageError(f"{path}: not an epochs.csv of ctrkit: {error}") from None
            rows.append(row)
    return rows
