"""The run folder: its records, written atomically and read again. Nothing here imports torch."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ctrkit.config import Cell, WorkloadSpec, decode, encode
from ctrkit.environment import cache_folder, describe_environment, machine_fingerprint
from ctrkit.errors import UsageError
from ctrkit.files import read_json, read_table, write_atomically, write_json, write_table
from ctrkit.records import (
    SCHEMA_VERSION,
    STAGES,
    Inspection,
    Measurement,
    Recommendation,
    RunInfo,
    TrialRecord,
)

if TYPE_CHECKING:
    import pyarrow as pa


class RunFolder:
    """One run's folder. `create` makes a new one, `open` reads an old one."""

    def __init__(self, path: Path, info: RunInfo) -> None:
        self.path = path
        self.info = info

    @classmethod
    def create(
        cls, command: str, argv: Sequence[str], workload: WorkloadSpec, out: Path | None = None
    ) -> RunFolder:
        """A new folder with its `run.json`; `out` must be missing or empty.

        Raises:
            UsageError: the folder is not empty or cannot be written.
        """
        created = datetime.now(UTC)
        path = out or _free_path(Path("results/runs"), created.strftime("%Y%m%dT%H%M%SZ"), command)
        check_out_folder(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"--out {path}: cannot be made: {error.strerror}") from None
        info = RunInfo(
            command=command,
            argv=list(argv),
            created=created.isoformat(timespec="seconds"),
            environment=describe_environment(),
            machine_fingerprint=machine_fingerprint(),
            workload=workload,
        )
        run = cls(path.resolve(), info)
        run.save_info()
        _add_to_index(run.path)
        return run

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """A run folder that exists.

        Raises:
            UsageError: no run folder, or one of an unknown schema version.
        """
        if not (path / "run.json").is_file():
            raise UsageError(f"{path}: no run folder (it has no run.json)")
        values = read_json(path / "run.json")
        version = values.get("schema_version") if isinstance(values, dict) else None
        if version != SCHEMA_VERSION:
            raise UsageError(
                f"{path}/run.json: schema version {version}, but this ctrkit reads {SCHEMA_VERSION}"
            )
        return cls(path.resolve(), decode(RunInfo, values, f"{path}/run.json"))

    def update(self, **changes: Any) -> None:
        """Change fields of `run.json` and save it."""
        self.info = dataclasses.replace(self.info, **changes)
        self.save_info()

    def save_info(self) -> None:
        """Write `run.json`."""
        write_json(self.path / "run.json", self.info)

    def save_trials(self, records: Sequence[TrialRecord]) -> None:
        """Write `trials.parquet` anew with all trials so far."""
        write_table(self.path / "trials.parquet", trials_table(records))

    def trials(self) -> list[TrialRecord]:
        """The rows of `trials.parquet`; empty if there is none yet.

        Raises:
            UsageError: the file is damaged.
        """
        path = self.path / "trials.parquet"
        return records_of_table(read_table(path)) if path.is_file() else []

    def save_recommendation(self, recommendation: Recommendation) -> None:
        """Write `recommendation.json`."""
        write_json(self.path / "recommendation.json", recommendation)

    def recommendation(self) -> Recommendation | None:
        """What the probe recommends, None if it did not come to that."""
        path = self.path / "recommendation.json"
        return decode(Recommendation, read_json(path), str(path)) if path.is_file() else None


def check_out_folder(path: Path) -> None:
    """Check that `--out` is missing or an empty folder, in a place that can be written.

    Raises:
        UsageError: it is not.
    """
    if path.is_dir():
        if any(path.iterdir()):
            raise UsageError(f"--out {path}: the folder is not empty; name a new one")
    elif path.exists():
        raise UsageError(f"--out {path}: is a file, not a folder")
    parent = path
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise UsageError(f"--out {path}: {parent} cannot be written; name another folder")


def _free_path(folder: Path, stamp: str, command: str) -> Path:
    path, number = folder / f"{stamp}-{command}", 1
    while path.exists():
        number += 1
        path = folder / f"{stamp}-{command}-{number}"
    return path


def _index_path() -> Path:
    return cache_folder() / "runs.jsonl"


def _add_to_index(path: Path) -> None:
    """Remember the run so that `report` finds it from anywhere; a lost index only costs that."""
    try:
        _index_path().parent.mkdir(parents=True, exist_ok=True)
        with open(_index_path(), "a", encoding="utf-8") as file:
            file.write(json.dumps({"path": str(path)}) + "\n")
    except OSError:
        return


def known_runs() -> Iterator[Path]:
    """Run folders of the index that still exist, the newest first."""
    try:
        lines = _index_path().read_text("utf-8").splitlines()
    except OSError:
        return
    seen = set()
    for line in reversed(lines):
        try:
            path = Path(json.loads(line)["path"])
        except (ValueError, KeyError, TypeError):
            continue
        if path not in seen and (path / "run.json").is_file():
            seen.add(path)
            yield path


def save_measurement(path: Path, measurement: Measurement | Inspection) -> None:
    """The child's result, atomically (compact: the stamps can be long)."""
    write_atomically(path, msgspec.json.encode(encode(measurement)))


def load_measurement(path: Path) -> Measurement | None:
    """The child's result so far, None if it wrote none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Measurement)
    except (OSError, msgspec.DecodeError):
        return None


def load_inspection(path: Path) -> Inspection | None:
    """The child's inspection, None if it wrote none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Inspection)
    except (OSError, msgspec.DecodeError):
        return None


def trials_table(records: Sequence[TrialRecord]) -> pa.Table:
    """Trials as an Arrow table: axes and stage seconds are columns of their own."""
    import pyarrow as pa

    rows = [_flat(record) for record in records]
    return pa.Table.from_pylist(rows, schema=_trials_schema())


def _flat(record: TrialRecord) -> dict[str, Any]:
    row = encode(record)
    row |= row.pop("cell")
    stage_s: Mapping[str, float] = row.pop("stage_s")
    row |= {f"{stage}_s": stage_s.get(stage) for stage in STAGES}
    return dict(row)


def _trials_schema() -> pa.Schema:
    import pyarrow as pa

    arrow_types = {
        "int": pa.int64(), "int | None": pa.int64(), "bool": pa.bool_(),
        "float | None": pa.float64(), "str": pa.string(), "str | None": pa.string(),
        "list[str]": pa.list_(pa.string()),
    }  # fmt: skip
    fields = []
    for f in dataclasses.fields(TrialRecord):
        if f.name == "cell":
            fields += [(a.name, arrow_types[str(a.type)]) for a in dataclasses.fields(Cell)]
        elif f.name == "stage_s":
            fields += [(f"{stage}_s", pa.float64()) for stage in STAGES]
        else:
            fields.append((f.name, arrow_types[str(f.type)]))
    return pa.schema(fields)


def records_of_table(table: pa.Table) -> list[TrialRecord]:
    """Trials of an Arrow table made by `trials_table`."""
    axes = [f.name for f in dataclasses.fields(Cell)]
    records = []
    for row in table.to_pylist():
        cell = {axis: row.pop(axis) for axis in axes}
        stage_s = {stage: row.pop(f"{stage}_s") for stage in STAGES}
        row["stage_s"] = {stage: value for stage, value in stage_s.items() if value is not None}
        records.append(decode(TrialRecord, {**row, "cell": cell}, "trials.parquet"))
    return records
