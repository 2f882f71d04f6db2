"""`epochs.csv`: a row for each finished epoch; the child writes it, both sides read it."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from ctrkit.core.errors import UsageError
from ctrkit.core.files import write_atomically
from ctrkit.core.records import EPOCH_COLUMNS

EPOCHS = "epochs.csv"

EpochRow = dict[str, float | None]
"""Every column of EPOCH_COLUMNS and of the file, None where it is unknown."""


def write_epochs(path: Path, rows: Sequence[Mapping[str, float | None]]) -> None:
    """Write the header and all rows; what a row does not have, and NaN, is left blank."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(EPOCH_COLUMNS)
    for row in rows:
        writer.writerow([_cell(row.get(column)) for column in EPOCH_COLUMNS])
    write_atomically(path, text.getvalue().encode())


def _cell(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else repr(value)


def read_epochs(path: Path, *, whole: bool = False) -> list[EpochRow]:
    """The rows up to the first that is damaged; none where there is no file.

    A last line without its end was cut: even its last number may be a part of one.

    Raises:
        UsageError: a row is damaged, and the `whole` file was asked for.
    """
    if not path.is_file():
        return []
    rows: list[EpochRow] = []
    text, end, cut = path.read_text("utf-8", errors="replace").rpartition("\n")
    for texts in csv.DictReader(io.StringIO(text + end)):
        if None in texts or None in texts.values() or _number(texts.get("epoch")) is None:
            cut = ",".join(str(value) for value in texts.values())
            break
        rows.append(dict.fromkeys(EPOCH_COLUMNS) | {k: _number(v) for k, v in texts.items()})
    if whole and cut:
        raise UsageError(f"{path}: not an epochs.csv of ctrkit: row {len(rows) + 1} is '{cut}'")
    return rows


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    if not math.isfinite(value):
        return None
    return int(value) if value.is_integer() and abs(value) < 2**53 else value
