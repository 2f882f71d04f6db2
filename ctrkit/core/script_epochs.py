"""`script-epochs.jsonl`: a line for each epoch that the observer saw a script finish."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

EPOCHS_FILE = "script-epochs.jsonl"


def read_script_epochs(path: Path) -> list[dict[str, Any]]:
    """The lines up to the first that is damaged; none where there is no file.

    `cut` stands in the line of an epoch that the end of the script ended, with batches left.
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
    """Rows of `epochs.csv`: how long each epoch took, with its validation and its checkpoint.

    An epoch lasts until the next one begins (`over_s`). What comes after the last one's batches is
    known only as its validation and its checkpoint, unless those came in the midst of its batches,
    as the epochs before show.
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
