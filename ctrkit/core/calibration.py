"""`calibration.parquet` in the cache folder: projected times, and the times that real runs took."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctrkit.core.config import CELL_AXES, decode, encode
from ctrkit.core.environment import cache_folder
from ctrkit.core.errors import UsageError
from ctrkit.core.files import read_json, read_table, write_table
from ctrkit.core.launch_spread import Pair
from ctrkit.core.locks import LockTakenError, locked
from ctrkit.core.records import RunInfo
from ctrkit.core.registry import title_of
from ctrkit.core.run_time import projected_time

if TYPE_CHECKING:
    import pyarrow as pa

CALIBRATION = "calibration.parquet"
CALIBRATION_SCHEMA = 1
FINISHED, INTERRUPTED = "finished", "interrupted"
_WAIT_S = 10.0
#: Columns that older files lack.
_ADDED = {"apart_s"}
HOUR_S = 3600.0


@dataclass(frozen=True, kw_only=True)
class CalibrationRow:
    """One real run for which a time had been projected. Times are wall-clock seconds.

    Args:
        when: when the run was started, UTC.
        run: name of its run folder; a resumed run keeps one row.
        machine_fingerprint: fingerprint of the machine that it ran on.
        workload_fingerprint: None if the workload was never inspected.
        data_fingerprint: likewise.
        phase: name of its phase; the workload's target if there is none.
        cell_id: id of its configuration.
        cell: the axes of its configuration.
        probe: name of the probe's run folder; None if unknown.
        launches: number of fresh launches that the projection is based on; None if unknown.
        flags: flags of the projection.
        projected_epoch_s: an epoch as `wall_s` of `epochs.csv` counts it, with its interval beside
            it.
        projected_total_s: the epochs that were really run, with start-up.
        actual_epoch_s: mean of the finished epochs; None without any.
        actual_total_s: None unless the run ended by itself after whole epochs.
        epochs: number of finished epochs.
        incidents: how often it was restarted or stopped, or the host slept.
        apart_s: time from the projection to the start of the run; None if unknown.
        outcome: `finished`, `interrupted` or `failed: VERDICT`.
    """

    when: str
    run: str
    machine_fingerprint: str
    workload_fingerprint: str | None
    data_fingerprint: str | None
    phase: str
    cell_id: str
    cell: dict[str, Any]
    probe: str | None
    launches: int | None
    flags: list[str] = field(default_factory=list)
    projected_epoch_s: float
    projected_epoch_s_low: float | None
    projected_epoch_s_high: float | None
    projected_total_s: float | None
    projected_total_s_low: float | None
    projected_total_s_high: float | None
    actual_epoch_s: float | None
    actual_total_s: float | None
    epochs: int
    incidents: int
    apart_s: float | None = None
    outcome: str
    schema_version: int = CALIBRATION_SCHEMA


def calibration_path() -> Path:
    """The calibration file of this machine."""
    return cache_folder() / CALIBRATION


def row_of_run(
    path: Path, info: RunInfo, epoch_wall_s: Sequence[float], incidents: int
) -> CalibrationRow | None:
    """The row of a run that has ended; None if its epochs had no projection.

    Args:
        path: its run folder.
        info: its `run.json` with the final status.
        epoch_wall_s: `wall_s` of each row of `epochs.csv`.
        incidents: number of entries in its `incidents.jsonl`.
    """
    projection, cell, time = info.projection, info.cell, projected_time(info.projection)
    if projection is None or cell is None or time is None:
        return None
    epochs = len(epoch_wall_s)
    whole = info.status == "done" and epochs > 0 and _ended_with_an_epoch(path, info, epochs)
    total_s = time.total_s(epochs) if epochs else None
    low_s, high_s = (None, None) if total_s is None else time.range_s(total_s)
    spec = info.workload
    return CalibrationRow(
        when=info.created,
        run=path.name,
        machine_fingerprint=info.machine_fingerprint,
        workload_fingerprint=info.workload_fingerprint,
        data_fingerprint=info.data_fingerprint,
        phase=title_of(spec) or spec.target.rpartition("/")[2],
        cell_id=cell.cell_id,
        cell={axis: getattr(cell, axis) for axis in CELL_AXES},
        probe=projection.probe,
        launches=projection.launches,
        flags=list(projection.flags),
        projected_epoch_s=time.epoch_s,
        projected_epoch_s_low=projection.projected_epoch_s_low,
        projected_epoch_s_high=projection.projected_epoch_s_high,
        projected_total_s=total_s,
        projected_total_s_low=low_s,
        projected_total_s_high=high_s,
        actual_epoch_s=sum(epoch_wall_s) / epochs if epochs else None,
        actual_total_s=info.wall_s if whole else None,
        epochs=epochs,
        incidents=incidents,
        apart_s=_seconds_between(projection.projected_at, info.created),
        outcome=_outcome(info),
    )


def _seconds_between(earlier: str | None, later: str) -> float | None:
    try:
        found = datetime.fromisoformat(later) - datetime.fromisoformat(earlier or "")
    except (ValueError, TypeError):
        return None
    return max(0.0, found.total_seconds())


#: Classes of the time between projection and start of a run: name and upper end in seconds.
TIMES_APART = {"within an hour": HOUR_S, "within a day": 24 * HOUR_S, "later": math.inf}


def time_apart(row: CalibrationRow) -> str:
    """The class of TIMES_APART that a run belongs to; the first one if the time is unknown."""
    return name_of_time_apart(row.apart_s or 0.0)


def name_of_time_apart(apart_s: float) -> str:
    """The key of TIMES_APART for a run that starts so long after its projection."""
    return next(name for name, most_s in TIMES_APART.items() if apart_s <= most_s)


def pairs_of(
    rows: Sequence[CalibrationRow],
    machine_fingerprint: str,
    workload_fingerprint: str | None,
    apart: str = "within an hour",
) -> list[Pair]:
    """Projected and actual times of this machine's runs that started so long after the projection.

    Runs that were restarted or stopped, or during which the host slept, are left out, since no
    projection covers that. No run is left out for its result.
    """
    return [
        Pair(
            projected_s=row.projected_epoch_s,
            actual_s=row.actual_epoch_s,
            launches=row.launches or 1,
            is_of_workload=workload_fingerprint is not None
            and row.workload_fingerprint == workload_fingerprint,
        )
        for row in rows
        if row.machine_fingerprint == machine_fingerprint
        and row.actual_epoch_s
        and row.projected_epoch_s > 0
        and not row.incidents
        and time_apart(row) == apart
    ]


def _ended_with_an_epoch(path: Path, info: RunInfo, epochs: int) -> bool:
    """Whether no epoch was cut short (by `--max-steps`, say); otherwise no total was projected."""
    planned = info.sizes.epochs if info.sizes is not None else None
    try:
        ended = read_json(path / "child" / "outcome.json")
    except UsageError:
        ended = {}
    return bool(ended.get("stopped_early")) or (planned is not None and epochs >= planned)


def _outcome(info: RunInfo) -> str:
    if info.status == "done":
        return FINISHED
    if info.status in (INTERRUPTED, "running"):
        return INTERRUPTED
    verdict = info.status_reason.partition(":")[0].strip()
    return f"failed: {verdict}" if info.status == "ended" and verdict else "failed"


def note_calibration(row: CalibrationRow, path: Path | None = None) -> None:
    """Add a run's row, or replace the one that it has.

    Raises:
        UsageError: the file cannot be read or written, or has another version; it stays unchanged.
    """
    path = path or calibration_path()
    with _only_writer(path):
        rows = [kept for kept in read_calibration(path) if _key(kept) != _key(row)]
        write_table(path, _table([*rows, row]))


def _key(row: CalibrationRow) -> tuple[str, str, str]:
    return row.when, row.run, row.machine_fingerprint


@contextmanager
def _only_writer(path: Path) -> Iterator[None]:
    """Hold the file's lock; on a file system without locks, hold none."""
    with ExitStack() as held:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(path.with_name(f"{path.name}.lock"), wait_s=_WAIT_S))
        except LockTakenError:
            raise UsageError(
                f"{path}: another process has been writing it for more than {_WAIT_S:.0f} s; this "
                "run is not noted there"
            ) from None
        except OSError as error:
            raise UsageError(f"{path}: cannot be written: {error.strerror or error}") from None
        yield


def read_calibration(path: Path | None = None) -> list[CalibrationRow]:
    """All rows, the oldest first; empty if no such run has ended yet.

    Raises:
        UsageError: the file is damaged, or has another schema version.
    """
    path = path or calibration_path()
    if not path.is_file():
        return []
    table = read_table(path)
    columns = set(table.column_names)
    versions = set(table["schema_version"].to_pylist()) if "schema_version" in columns else {None}
    lacking = set(_schema().names) - columns
    if versions - {CALIBRATION_SCHEMA} or columns - set(_schema().names) or lacking - _ADDED:
        found = ", ".join(sorted(map(str, versions)))
        raise UsageError(
            f"{path}: schema version {found}, but this ctrkit reads {CALIBRATION_SCHEMA}; move the "
            "file away to begin a new one"
        )
    try:
        return [
            decode(CalibrationRow, {**row, "cell": json.loads(row["cell"])}, str(path))
            for row in table.to_pylist()
        ]
    except (ValueError, TypeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from None


def _table(rows: Sequence[CalibrationRow]) -> pa.Table:
    import pyarrow as pa

    values = [encode(row) | {"cell": json.dumps(row.cell, sort_keys=True)} for row in rows]
    return pa.Table.from_pylist(values, schema=_schema())


def _schema() -> pa.Schema:
    import pyarrow as pa

    kinds = {
        "str": pa.string(), "str | None": pa.string(), "int": pa.int64(), "int | None": pa.int64(),
        "float": pa.float64(), "float | None": pa.float64(), "list[str]": pa.list_(pa.string()),
        "dict[str, Any]": pa.string(),
    }  # fmt: skip
    return pa.schema([(f.name, kinds[str(f.type)]) for f in dataclasses.fields(CalibrationRow)])
