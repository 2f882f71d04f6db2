"""The list of runs, one line each, from `run.json` and other small files of a run folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctrkit.core.errors import UsageError
from ctrkit.core.records import Recommendation, RunInfo
from ctrkit.core.registry import title_of
from ctrkit.core.run_time import projected_time
from ctrkit.core.runs import RunFolder
from ctrkit.core.units import format_duration
from ctrkit.report.blocks import Column, Report, Section, Table
from ctrkit.report.run_reader import true_status
from ctrkit.report.shell_lines import short_path, short_target
from ctrkit.report.words import clean


@dataclass(frozen=True, kw_only=True)
class ListedRun:
    """A run in the list; an unreadable one is listed as `unreadable`.

    Attributes:
        cell_id: the recommended cell of a probe, or the cell of a training run.
        projected_s: projected time of the whole real run.
        took_s: time that the run itself took.
    """

    path: Path
    created: str = ""
    command: str = ""
    workload: str = ""
    cell_id: str = ""
    status: str = ""
    projected_s: float | None = None
    took_s: float | None = None

    def as_json(self) -> dict[str, Any]:
        """The line as JSON values."""
        return vars(self) | {"path": str(self.path)}


def listed_run(path: Path) -> ListedRun:
    """The line of a run folder."""
    try:
        run = RunFolder.open(path)
    except UsageError:
        return ListedRun(path=path, status="unreadable")
    info = true_status(run.path, run.info)
    best = _recommendation(run)
    cell = best.cell if best else info.cell if info.command != "probe" else None
    return ListedRun(
        path=run.path,
        created=info.created,
        command=info.command,
        workload=f"{short_target(info.workload.target)} {title_of(info.workload)}".strip(),
        cell_id=cell.name if cell else "",
        status=_status(info, best),
        projected_s=_projected_s(info, best),
        took_s=info.wall_s,
    )


def list_report(runs: list[ListedRun]) -> Report:
    """The runs as a table, in the given order."""
    columns = (
        Column("when, UTC", right=False),
        Column("command", right=False),
        Column("workload", right=False, optional=4),
        Column("cell", right=False, optional=2),
        Column("status", right=False),
        Column("projected", optional=1),
        Column("took", optional=3),
        Column("folder", right=False),
    )
    rows = tuple(
        (
            clean(run.created.replace("T", " ")[:16], 16), clean(run.command, 10),
            clean(run.workload, 30), clean(run.cell_id, 40), clean(run.status, 24),
            "" if run.projected_s is None else format_duration(run.projected_s),
            "" if run.took_s is None else format_duration(run.took_s),
            clean(short_path(run.path), 200),
        )
        for run in runs
    )  # fmt: skip
    return Report("Runs, the newest first", (), (Section("", (Table(columns, rows),)),))


def _recommendation(run: RunFolder) -> Recommendation | None:
    try:
        return run.recommendation()
    except UsageError:
        return None


def _status(info: RunInfo, best: Recommendation | None) -> str:
    """The status; for a finished probe, whether it has an answer."""
    if info.command == "probe" and info.status == "done" and best is None:
        return "no answer"
    return info.status


def _projected_s(info: RunInfo, best: Recommendation | None) -> float | None:
    """The projected whole real run, by this probe, or before this training began."""
    if best is not None:
        return best.projected_total_s
    time, epochs = projected_time(info.projection), info.planned_epochs
    return None if time is None or epochs is None else time.total_s(epochs)
