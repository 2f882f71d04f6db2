"""Reads a run folder for a report. It notes what is missing, and never fails because of it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ctrkit.core.config import RunSizes, WorkloadSpec
from ctrkit.core.environment import began_unix_s
from ctrkit.core.epochs import EPOCHS, EpochRow, odd_values, read_epochs
from ctrkit.core.errors import UsageError
from ctrkit.core.files import read_json, read_table
from ctrkit.core.place import Sight, sight_of
from ctrkit.core.progress import Progress, read_progress
from ctrkit.core.records import SCHEMA_VERSION, RunInfo, TrialRecord
from ctrkit.core.run_time import projected_time
from ctrkit.core.runs import INCIDENTS, RunFolder
from ctrkit.report.contents import DIED, ELSEWHERE, UNKNOWN, RunContents
from ctrkit.report.words import plural
from ctrkit.supervise.ledger import LEDGER, read_ledger

_SAME_START_S = 5.0  # allows for clock changes; two processes with the same id are further apart

_TRAIN_PARTS = (EPOCHS, "checkpoints", LEDGER, INCIDENTS)
_PARTS = ("trials.parquet", "recommendation.json", "stamps.parquet", "evidence", *_TRAIN_PARTS)

T = TypeVar("T")


def read_contents(path: Path) -> RunContents:
    """The contents of a run folder; without its `run.json`, what the other files tell.

    Raises:
        UsageError: it is no run folder, or has an unknown schema version.
    """
    missing: list[str] = []
    run = _open(path, missing)
    trials = _tolerant(run.trials, missing, "trials.parquet")
    recommendation = _tolerant(run.recommendation, missing, "recommendation.json")
    epochs = _tolerant(lambda: read_epochs(run.path / EPOCHS), missing, EPOCHS)
    incidents = _tolerant(run.incidents, missing, "incidents.jsonl")
    ledger = _tolerant(lambda: read_ledger(run.path / LEDGER), missing, LEDGER)
    missing += _absent(run, trials or [], epochs or [], incidents or [])
    progress_path = run.path / "child" / "progress.bin"
    progress = _tolerant(lambda: read_progress(progress_path), missing, "progress.bin")
    alive = run.info.status == "running" and _is_alive(run.info, progress, progress_path)
    checkpoints = run.path / "checkpoints"
    return RunContents(
        path=run.path,
        info=_with_true_status(run.info, alive),
        trials=trials or [],
        recommendation=recommendation,
        epochs=epochs or [],
        incidents=incidents or [],
        progress=progress,
        silent_s=max(0.0, time.monotonic() - progress.written_s) if progress and alive else None,
        alive=alive,
        has_checkpoint=checkpoints.is_dir() and any(checkpoints.iterdir()),
        missing=tuple(missing),
        ledger=tuple(ledger or ()),
        odd=tuple(_tolerant(lambda: odd_values(run.path / EPOCHS), [], EPOCHS) or ()),
    )


def _open(path: Path, missing: list[str]) -> RunFolder:
    """The run folder; if only `run.json` is lost, with what the rest tells."""
    try:
        return RunFolder.open(path)
    except UsageError as error:
        left = [name for name in _PARTS if (path / name).exists()]
        if not left or _version(path / "run.json") not in (None, SCHEMA_VERSION):
            raise
        missing.append(f"{error}; ctrkit does not know when, where and on what data it ran")
    is_train = any(name in left for name in _TRAIN_PARTS)
    run = RunFolder(path.resolve(), _unknown_info("train" if is_train else "probe"))
    best = _tolerant(run.recommendation, [], "recommendation.json")
    projected = projected_time(best)
    if best is not None and projected is not None and best.projected_total_s:
        sizes = RunSizes(epochs=projected.epochs_in(best.projected_total_s))
        run.info = dataclasses.replace(run.info, sizes=sizes)
    return run


def _version(path: Path) -> object:
    """The schema version in `run.json`: 0 if it names none, None if it is damaged."""
    try:
        values = read_json(path)
    except UsageError:
        return None
    return (values.get("schema_version") or 0) if isinstance(values, dict) else 0


def _unknown_info(command: str) -> RunInfo:
    return RunInfo(
        command=command,
        argv=[command],
        created="",
        environment={},
        machine_fingerprint="",
        workload=WorkloadSpec(target=UNKNOWN, data="unknown data"),
        status="unknown",
    )


def _absent(
    run: RunFolder,
    trials: list[TrialRecord],
    epochs: list[EpochRow],
    incidents: list[dict[str, Any]],
) -> list[str]:
    """A sentence for each file that a finished run of this kind should have, missing or cut.

    Files that exist but cannot be read were reported already.
    """
    info, lines = run.info, []
    is_done = info.status == "done" and not info.status_reason
    expected = {
        "trials.parquet": info.command == "probe" and is_done,
        "recommendation.json": info.command == "probe" and is_done,
        EPOCHS: info.command == "train" and info.status == "done",
    }
    lines += [
        f"{name}: is missing"
        for name, wanted in expected.items()
        if wanted and not (run.path / name).exists()
    ]
    stamps = run.path / "stamps.parquet"
    if any(t.kind == "full" and t.verdict == "ok" for t in trials):
        if stamps.is_file():
            _tolerant(lambda: read_table(stamps), lines, "stamps.parquet")
        else:
            lines.append("stamps.parquet: is missing, so there are no batch timelines")
    for name, read in ((EPOCHS, len(epochs) + 1), (INCIDENTS, len(incidents))):
        lost = _lines_in(run.path / name) - read
        if lost > 0:
            lines.append(f"{name}: {plural(lost, 'line')} cut short or damaged, left out")
    return lines


def _lines_in(path: Path) -> int:
    try:
        return sum(1 for line in path.read_bytes().splitlines() if line.strip())
    except OSError:
        return 0


def _tolerant(read: Callable[[], T], missing: list[str], name: str) -> T | None:
    try:
        return read()
    except UsageError as error:
        missing.append(str(error))
    except (OSError, KeyError, ValueError, TypeError) as error:
        missing.append(f"{name}: cannot be read: {type(error).__name__}: {error}")
    return None


def true_status(path: Path, info: RunInfo) -> RunInfo:
    """The `run.json` of a run folder, with the status DIED if its process is gone."""
    if info.status != "running":
        return info
    progress_path = path / "child" / "progress.bin"
    progress = _tolerant(lambda: read_progress(progress_path), [], "progress.bin")
    return _with_true_status(info, _is_alive(info, progress, progress_path))


def _with_true_status(info: RunInfo, alive: bool) -> RunInfo:
    if info.status != "running" or alive:
        return info
    if sight_of(info.place) is Sight.ELSEWHERE:
        return dataclasses.replace(
            info,
            status=ELSEWHERE,
            status_reason="it was started on another host or in another container, and may run "
            "there",
        )
    return dataclasses.replace(info, status=DIED, status_reason="it ended without an error message")


def _is_alive(info: RunInfo, progress: Progress | None, progress_path: Path) -> bool:
    """Whether the run's process still runs: the one in `run.json`, else that of its loop.

    For a probe without either, only its status is known. A process id of another host or container
    means nothing here.
    """
    if sight_of(info.place) is not Sight.HERE:
        return False
    if info.pid is not None:
        began_s, born_s = info.pid_began_unix_s, began_unix_s(info.pid)
        return born_s is not None and (began_s is None or abs(born_s - began_s) < _SAME_START_S)
    if progress is None:
        return info.command != "train"
    born_s = began_unix_s(progress.pid)
    try:  # a process that began after the file was written is another one
        return born_s is not None and born_s <= progress_path.stat().st_mtime + 1.0
    except OSError:
        return False
