"""The list of runs: one line each, from `run.json` and the recommendation alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctrkit.errors import UsageError
from ctrkit.report.blocks import Column, Report, Section, Table
from ctrkit.report.paste import short_path
from ctrkit.report.words import clean
from ctrkit.runs import RunFolder


@dataclass(frozen=True, kw_only=True)
class ListedRun:
    """A run in the list; one that cannot be read is listed too, as `unreadable`."""

    path: Path
    created: str = ""
    command: str = ""
    workload: str = ""
    status: str = ""

    def as_json(self) -> dict[str, Any]:
        """The line as JSON values."""
        return {
            "path": str(self.path), "created": self.created, "command": self.command,
            "workload": self.workload, "status": self.status,
        }  # fmt: skip


def listed_run(path: Path) -> ListedRun:
    """The line of a run folder."""
    try:
        run = RunFolder.open(path)
    except UsageError:
        return ListedRun(path=path, status="unreadable")
    info = run.info
    phase = "" if ".py:" in info.workload.target else f" {info.workload.phase.name}"
    return ListedRun(
        path=run.path, created=info.created, command=info.command,
        workload=info.workload.target + phase, status=info.status,
    )  # fmt: skip


def list_report(runs: list[ListedRun]) -> Report:
    """The runs as a table, in the order given."""
    columns = (
        Column("created", right=False),
        Column("command", right=False),
        Column("workload", right=False, optional=3),
        Column("status", right=False),
        Column("folder", right=False),
    )
    rows = tuple(
        (
            clean(run.created.replace("T", " ")[:16], 16), clean(run.command, 10),
            clean(run.workload, 30), clean(run.status, 60), clean(short_path(run.path), 200),
        )
        for run in runs
    )  # fmt: skip
    return Report("Runs, the newest first", (), (Section("", (Table(columns, rows),)),))
