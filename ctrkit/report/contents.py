"""Read a run folder for a report, as much of it as there is; what is missing is said, not fatal."""

from __future__ import annotations

import csv
import io
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil

from ctrkit.config import encode
from ctrkit.errors import UsageError
from ctrkit.files import finite
from ctrkit.progress import Progress, read_progress
from ctrkit.records import EPOCH_COLUMNS, Recommendation, RunInfo, TrialRecord
from ctrkit.runs import RunFolder

EpochRow = Mapping[str, float | None]
"""A row of `epochs.csv`: every column of EPOCH_COLUMNS, None where it is unknown."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class RunContents:
    """All that a report needs of one run folder.

    `progress` is the loop's last sign of life, `silent_s` how long ago that was (None where it
    cannot be known), `alive` whether its process still runs. `missing` has a sentence for
    everything that should be there and is not, or cannot be read.
    """

    path: Path
    info: RunInfo
    trials: list[TrialRecord]
    recommendation: Recommendation | None
    epochs: list[EpochRow]
    incidents: list[dict[str, Any]]
    progress: Progress | None
    silent_s: float | None
    alive: bool
    has_checkpoint: bool
    missing: tuple[str, ...]


def read_contents(path: Path) -> RunContents:
    """The contents of a run folder.

    Raises:
        UsageError: no run folder, a damaged `run.json`, or one of an unknown schema version.
    """
    run = RunFolder.open(path)
    missing: list[str] = []
    trials = _tolerant(run.trials, missing, "trials.parquet")
    recommendation = _tolerant(run.recommendation, missing, "recommendation.json")
    epochs = _tolerant(lambda: read_epochs(run.path / "epochs.csv"), missing, "epochs.csv")
    incidents = _tolerant(lambda: _read_incidents(run.path), missing, "incidents.jsonl")
    progress_path = run.path / "child" / "progress.bin"
    progress = _tolerant(lambda: read_progress(progress_path), missing, "progress.bin")
    alive = progress is not None and _is_alive(progress.pid, progress_path)
    checkpoints = run.path / "checkpoints"
    return RunContents(
        path=run.path,
        info=run.info,
        trials=trials or [],
        recommendation=recommendation,
        epochs=epochs or [],
        incidents=incidents or [],
        progress=progress,
        silent_s=max(0.0, time.monotonic() - progress.written_s) if progress and alive else None,
        alive=alive,
        has_checkpoint=checkpoints.is_dir() and any(checkpoints.iterdir()),
        missing=tuple(missing),
    )


def contents_json(contents: RunContents) -> dict[str, Any]:
    """The run as JSON values: path, run, trials, recommendation, epochs, missing."""
    document: dict[str, Any] = finite(
        {
            "path": str(contents.path),
            "run": encode(contents.info),
            "trials": [encode(record) for record in contents.trials],
            "recommendation": (
                None if contents.recommendation is None else encode(contents.recommendation)
            ),
            "epochs": [dict(row) for row in contents.epochs],
            "missing": list(contents.missing),
        }
    )
    return document


def read_epochs(path: Path) -> list[EpochRow]:
    """Rows of `epochs.csv`, up to the first that is damaged; none where there is no file."""
    if not path.is_file():
        return []
    rows: list[EpochRow] = []
    for texts in csv.DictReader(io.StringIO(path.read_text("utf-8", errors="replace"))):
        row = {column: _number(texts.get(column)) for column in EPOCH_COLUMNS}
        if row["epoch"] is None:
            break
        rows.append(row)
    return rows


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    if not math.isfinite(value):
        return None
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def _read_incidents(path: Path) -> list[dict[str, Any]]:
    file = path / "incidents.jsonl"
    if not file.is_file():
        return []
    incidents = []
    for line in file.read_text("utf-8", errors="replace").splitlines():
        try:
            value = json.loads(line)
        except ValueError:  # the last line of a run that was killed may be half a line
            continue
        if isinstance(value, dict):
            incidents.append(value)
    return incidents


def _tolerant(read: Callable[[], T], missing: list[str], name: str) -> T | None:
    try:
        return read()
    except UsageError as error:
        missing.append(str(error))
    except (OSError, KeyError, ValueError, TypeError) as error:
        missing.append(f"{name}: cannot be read: {type(error).__name__}: {error}")
    return None


def _is_alive(pid: int, progress_path: Path) -> bool:
    """Whether the writer of the progress file runs; a process born after the file is another."""
    try:
        born_s: float = psutil.Process(pid).create_time()
        return born_s <= progress_path.stat().st_mtime + 1.0
    except (psutil.Error, OSError, ValueError):
        return False
