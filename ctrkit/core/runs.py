"""The run folder: writes its records atomically, and reads them again. Imports no torch."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ctrkit.core.command_line import shown_script, without_secrets
from ctrkit.core.config import Cell, WorkloadSpec, decode, encode
from ctrkit.core.environment import (
    began_unix_s,
    cache_folder,
    describe_environment,
    machine_fingerprint,
    with_torch,
)
from ctrkit.core.errors import UsageError
from ctrkit.core.files import (
    finite,
    read_json,
    read_table,
    write_json,
    write_table,
)
from ctrkit.core.place import this_place
from ctrkit.core.records import SCHEMA_VERSION, Origin, Recommendation, RunInfo, TrialRecord
from ctrkit.core.registry import settings_of
from ctrkit.core.trial_tables import records_of_table, trials_table

WARNINGS_FILE = "warnings.json"
INCIDENTS = "incidents.jsonl"


@dataclass(frozen=True, kw_only=True)
class Incident:
    """How a child of a real run ended unfinished, and what was done; a line of `incidents.jsonl`.

    Args:
        number: 1, 2, ... over all launches of the run.
        at: when it ended, UTC.
        verdict: one of VERDICTS, or `host slept`, `was stopped` and the like for a note.
        reason: a sentence.
        cause: the cause, if known.
        fix: what is known to help, if anything is.
        evidence: folder, relative to the run's.
        epoch: epoch that the loop was in.
        step: steps done of that epoch.
        stage: label of the progress stage.
        cell_before: cell in which it ran.
        cell_after: cell in which it continues; None if it does not.
        action: `restarted`, `stopped`, `finished` (its result was complete), or `noted`.
        why: a clause with the reason for the action.
        resumed_from: epoch, and batches done of it, of the checkpoint to continue from.
        lost_steps: steps to be repeated; None if unknown.
        lost_s: seconds between that checkpoint (or the launch) and the end of the child.
        note: anything else worth knowing.
    """

    number: int
    at: str
    verdict: str
    reason: str
    cause: str | None = None
    fix: str | None = None
    evidence: str | None = None
    epoch: int = 0
    step: int = 0
    stage: str = ""
    cell_before: Cell
    cell_after: Cell | None = None
    action: str
    why: str = ""
    resumed_from: dict[str, int] | None = None
    lost_steps: int | None = None
    lost_s: float | None = None
    note: str | None = None


def _why_no_run(path: Path) -> str:
    if path.is_dir():
        return "not a run folder, it has no run.json"
    return "not a run folder, but a file" if path.exists() else "there is no such folder"


class RunFolder:
    """The folder of one run. `create` makes a new one, `open` reads an old one."""

    def __init__(self, path: Path, info: RunInfo) -> None:
        self.path = path
        self.info = info

    @classmethod
    def create(
        cls, command: str, argv: Sequence[str], workload: WorkloadSpec, out: Path | None = None
    ) -> RunFolder:
        """Make a new folder with its `run.json`; `out` must be missing or empty.

        Raises:
            UsageError: the folder is not empty or cannot be written.
        """
        created, environment = datetime.now(UTC), describe_environment()
        path = _named_folder(out) if out is not None else _new_folder(created, command)
        if workload.script is not None:
            workload = dataclasses.replace(workload, script=shown_script(workload.script))
            environment = with_torch(environment, "")  # until the script has told its own
        info = RunInfo(
            command=command,
            argv=without_secrets(argv),
            created=created.isoformat(timespec="seconds"),
            environment=environment,
            machine_fingerprint=machine_fingerprint(),
            workload=workload,
            **_this_process(),
        )
        run = cls(path.resolve(), info)
        run.save_info()
        _add_to_index(run.path)
        return run

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open an existing run folder.

        Raises:
            UsageError: it is no run folder, or has an unknown schema version.
        """
        if not (path / "run.json").is_file():
            raise UsageError(f"{path}: {_why_no_run(path)}; ctrkit report --list shows runs")
        values = read_json(path / "run.json")
        version = values.get("schema_version") if isinstance(values, dict) else None
        if version != SCHEMA_VERSION:
            raise UsageError(
                f"{path}/run.json: schema version {version}, but this ctrkit reads "
                f"{SCHEMA_VERSION}; use the ctrkit that wrote it"
            )
        return cls(path.resolve(), _info_of(values, f"{path}/run.json"))

    def update(self, **changes: Any) -> None:
        """Change fields of `run.json` and save it; `status="running"` also records this process."""
        if changes.get("status") == "running":
            changes |= _this_process()
        self.info = dataclasses.replace(self.info, **changes)
        self.save_info()

    def save_info(self) -> None:
        """Write `run.json`."""
        write_json(self.path / "run.json", info_json(self.info))

    def save_trials(self, records: Sequence[TrialRecord]) -> None:
        """Rewrite `trials.parquet` with all trials so far."""
        write_table(self.path / "trials.parquet", trials_table(records))

    def trials(self) -> list[TrialRecord]:
        """The rows of `trials.parquet`; empty if there are none yet.

        Raises:
            UsageError: the file is damaged.
        """
        path = self.path / "trials.parquet"
        records = records_of_table(read_table(path)) if path.is_file() else []
        unheeded = self.info.unheeded
        told = dataclasses.replace
        return [told(r, cell=told(r.cell, unheeded=unheeded)) for r in records]

    def origin(self) -> Origin:
        """What the run is about, for a recommendation that is used elsewhere."""
        info = self.info
        return Origin(
            workload=info.workload,
            workload_fingerprint=info.workload_fingerprint,
            data_fingerprint=info.data_fingerprint,
            machine_fingerprint=info.machine_fingerprint,
        )

    def save_recommendation(self, recommendation: Recommendation) -> None:
        """Write `recommendation.json`."""
        write_json(self.path / "recommendation.json", recommendation)

    def recommendation(self) -> Recommendation | None:
        """The probe's recommendation; None if it made none."""
        path = self.path / "recommendation.json"
        return decode(Recommendation, read_json(path), str(path)) if path.is_file() else None

    def append_incident(self, incident: Incident) -> None:
        """Append a line to `incidents.jsonl`; it is on disk when this returns."""
        path = self.path / INCIDENTS
        line = json.dumps(finite(encode(incident)), ensure_ascii=False, allow_nan=False) + "\n"
        if path.is_file() and (text := path.read_bytes()) and not text.endswith(b"\n"):
            line = "\n" + line  # a supervisor that was killed left half a line
        with open(path, "ab", buffering=0) as file:
            file.write(line.encode())  # in one call, so that no reader sees a part of it
            os.fsync(file.fileno())

    def incidents(self) -> list[dict[str, Any]]:
        """The incidents as JSON objects, the oldest first; damaged lines are skipped."""
        path = self.path / INCIDENTS
        if not path.is_file():
            return []
        found = []
        for line in path.read_text("utf-8", errors="replace").splitlines():
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict):
                found.append(value)
        return found

    def next_incident(self) -> int:
        """The number of the next incident: 1, 2, ..."""
        numbers = [incident.get("number") for incident in self.incidents()]
        return max((number for number in numbers if isinstance(number, int)), default=0) + 1

    def new_evidence(self, what: str) -> Path:
        """An unused path for a folder of evidence; the folder is not made."""
        number = 1
        while (path := self.path / "evidence" / f"{what}-{number}").exists():
            number += 1
        return path


def info_json(info: RunInfo) -> dict[str, Any]:
    """The values of `run.json`, where the settings of a workload are named `phase` (contract)."""
    values: dict[str, Any] = encode(info)
    values["workload"]["phase"] = values["workload"].pop("settings")
    return values


def named_settings(values: Any) -> Any:
    """Values of a run or spec, with a workload's `phase` renamed to `settings` as in the code."""
    workload = values.get("workload") if isinstance(values, dict) else None
    if not isinstance(workload, dict) or "phase" not in workload:
        return values
    renamed = {"settings" if key == "phase" else key: value for key, value in workload.items()}
    return {**values, "workload": renamed}


def _info_of(values: Any, where: str) -> RunInfo:
    info = decode(RunInfo, named_settings(values), where)
    settings = settings_of(info.workload.target, info.workload.settings)
    workload = dataclasses.replace(info.workload, settings=settings)
    return dataclasses.replace(info, workload=workload)


def _this_process() -> dict[str, Any]:
    pid = os.getpid()
    return {"pid": pid, "pid_began_unix_s": began_unix_s(pid), "place": this_place()}


def check_out_folder(path: Path) -> None:
    """Check that `--out` is missing or an empty folder in a writable place.

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


def _named_folder(path: Path) -> Path:
    """Make the folder of `--out`, and claim it for this run against runs that start now."""
    check_out_folder(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path / "run.json", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except FileExistsError:
        raise UsageError(
            f"--out {path}: another run has just begun there; name a new one"
        ) from None
    except OSError as error:
        raise UsageError(f"--out {path}: cannot be made: {error.strerror}") from None
    return path


def _new_folder(created: datetime, command: str) -> Path:
    """Make a new folder below `results/runs`."""
    folder, name = Path("results/runs"), f"{created:%Y%m%dT%H%M%SZ}-{command}"
    number = 1
    while True:
        path = folder / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path.mkdir()
            return path
        except FileExistsError:
            if not folder.is_dir():
                raise UsageError(f"{folder}: is no folder; name one with --out") from None
            number += 1
        except OSError as error:
            raise UsageError(
                f"{path}: cannot be made: {error.strerror}; name another folder with --out"
            ) from None


def _index_path() -> Path:
    return cache_folder() / "runs.jsonl"


def _add_to_index(path: Path) -> None:
    """Add the run to the index, so that `report` finds it from anywhere; ignores a failure."""
    try:
        _index_path().parent.mkdir(parents=True, exist_ok=True)
        with open(_index_path(), "a", encoding="utf-8") as file:
            file.write(json.dumps({"path": str(path)}) + "\n")
    except OSError:
        return


def known_runs() -> Iterator[Path]:
    """Run folders in the index that still exist, the newest first."""
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


def newest_run(folder: Path) -> Path | None:
    """The newest run inside this folder, else the newest run of this machine."""
    folder, newest = folder.resolve(), None
    for path in known_runs():
        if path.is_relative_to(folder):
            return path
        newest = newest or path
    return newest
