"""`script-epochs.jsonl`: a line for each epoch that the observer saw a script finish."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

EPOCHS_FILE = "script-epochs.jsonl"


def read_script_epochs(path: Path) -> list[dict[str, Any]]:
    """The lines up to the first damaged one; empty if there is no file.

    A line has `cut` if the script ended within the epoch, with batches left.
    """
    try:
        text = path.read_text("utf-8", errors="replace")
    except OSError:
        return []
    found: list[dict[str, Any]] = []
    for line in text.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            break
        if not isinstance(value, dict) or not isinstance(value.get("began_s"), int | float):
            break
        found.append(value)
    return found


def epoch_rows(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, float | None]]:
    """Rows of `epochs.csv` with the time of each epoch, including validation and checkpoint.

    An epoch lasts until the next one begins (`over_s`). After the last epoch's batches, only its
    validation and checkpoint count. They do not count if the epochs before show that they come
    between an epoch's batches.
    """
    rows: list[dict[str, float | None]] = []
    in_midst = False
    for number, line in enumerate(lines):
        began_s, ended_s = float(line["began_s"]), line.get("ended_s")
        beside_s = float(line.get("validation_s") or 0.0) + float(line.get("checkpoint_s") or 0.0)
        wall_s: float | None = None
        over_s = line.get("over_s")
        if over_s is None and number + 1 < len(lines):
            over_s = lines[number + 1]["began_s"]
        if over_s is not None:
            wall_s = float(over_s) - began_s
            in_midst = ended_s is not None and wall_s < float(ended_s) - began_s + beside_s / 2
        elif ended_s is not None:
            wall_s = float(ended_s) - began_s + (0.0 if in_midst else beside_s)
        rows.append({"epoch": number + 1, "rows": line.get("rows"), "wall_s": wall_s})
    return rows
