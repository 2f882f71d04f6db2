"""Runs `ctrkit probe` on a scenario, and lists everything unexpected about each trial."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet
from hang_corpus import Scenario, remove_groups
from hang_left import run_marked

from ctrkit.probe.same_failure import NOT_TRIED

BATCH_SIZE = 8
LATE_S = 5.0
_CELL_S = 45.0
_HANGS = ("deadlock", "stalled", "shutdown-hang")
_WORKER = re.compile(r"worker (process )?\(?(pids?(\(s\))?:? ?)?\d", re.IGNORECASE)
_SILENT = re.compile(r"no progress in stage '[^']+' for (?:(\d+) min )?(?:([\d.]+) s)?")


@dataclass(frozen=True, kw_only=True)
class SeenTrial:
    """A trial as its run folder shows it, and what is wrong with it.

    `silent_s`: from the last progress to the verdict, for a hang. `named`: the guilty worker or
    main process and, where it can be known, its line are in the reason or in `cause.json`.
    """

    scenario: str
    workers: int
    start_method: str | None
    launch: int
    expected: tuple[str, ...]
    verdict: str
    reason: str
    wall_s: float | None
    silent_s: float | None
    limit_s: float
    named: bool | None
    problems: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class SeenProbe:
    """A probe of one scenario: its trials, and what it left behind."""

    scenario: str
    trials: tuple[SeenTrial, ...]
    wall_s: float
    exit_code: int | None
    left: int
    orphans: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def fine(self) -> bool:
        """Whether nothing is wrong with the probe or with any of its trials."""
        return not self.problems and not any(trial.problems for trial in self.trials)


def probe_scenario(
    scenario: Scenario,
    workers: Sequence[int],
    start_methods: Sequence[str],
    folder: Path,
    *,
    stall_timeout_s: float = 5.0,
) -> SeenProbe:
    """Probe the scenario's cells with the installed command and check every trial.

    Args:
        scenario: what to run.
        workers: worker counts to probe; those that make no sense for the scenario are left out.
        start_methods: start methods to probe, likewise.
        folder: an empty folder for the run folder and the command's output.
        stall_timeout_s: the time limit for silence, unless the scenario needs another.
    """
    counts, methods = scenario.axes(workers, start_methods)
    stall_s = scenario.stall_timeout_s or stall_timeout_s
    cells = sum(len(methods) if count else 1 for count in counts)
    budget_s = cells * (_CELL_S + 2 * scenario.budgets * stall_s)
    argv = [
        str(Path(sys.executable).with_name("ctrkit")), "probe",
        "--workload", f"{scenario.path}:make_loader", "--batch-size", str(BATCH_SIZE),
        "--workers", ",".join(map(str, counts)),
        *(["--start-method", ",".join(methods)] if methods else []),
        "--budget", f"{budget_s:.0f}s", "--stall-timeout", f"{stall_s:g}s",
        "--json", "--out", str(folder / "run"),
    ]  # fmt: skip
    ran = run_marked(
        argv, folder, cap_s=budget_s + 120, gently=True,
        environment={"CTRKIT_HOME": str(folder / "home")},
    )  # fmt: skip
    if "cgroup" in scenario.needs:
        remove_groups()
    rows = _rows(folder / "run")
    trials = tuple(_judge(scenario, row, folder / "run", stall_s) for row in rows if _counts(row))
    problems = _problems_of_probe(trials, ran.exit_code, ran.stdout, ran.stderr, cells)
    if ran.left:
        problems.append(f"{ran.left} processes left")
    if ran.orphans:
        problems.append(f"left in /dev/shm: {', '.join(ran.orphans)}")
    return SeenProbe(
        scenario=scenario.name,
        trials=trials,
        wall_s=ran.wall_s,
        exit_code=ran.exit_code,
        left=ran.left,
        orphans=ran.orphans,
        problems=tuple(problems),
    )


def _rows(run: Path) -> list[dict[str, Any]]:
    path = run / "trials.parquet"
    return pyarrow.parquet.read_table(path).to_pylist() if path.is_file() else []


def _counts(row: dict[str, Any]) -> bool:
    """Whether a trial counts: a repeat that the budget cut off does not, a first launch always."""
    return row["launch"] <= 1 or row["verdict"] != "skipped"


def _problems_of_probe(
    trials: Sequence[SeenTrial], exit_code: int | None, stdout: str, stderr: str, cells: int
) -> list[str]:
    if exit_code is None:
        return ["the probe did not end"]
    problems = []
    seen = {(trial.workers, trial.start_method) for trial in trials}
    if len(seen) != cells:
        problems.append(f"{len(seen)} of {cells} cells have a row")
    # a trial counts as viable if only its process did not end
    viable = any(trial.verdict in ("ok", "shutdown-hang") for trial in trials)
    if exit_code != (0 if viable else 4):
        said = stderr.splitlines()[-1][:300] if stderr.strip() else "no words"
        problems.append(f"exit code {exit_code}: {said}")
    try:
        json.loads(stdout)
    except ValueError:
        problems.append("stdout is not one JSON document")
    return problems


def _judge(scenario: Scenario, row: dict[str, Any], run: Path, stall_s: float) -> SeenTrial:
    workers, start_method = row["workers"], row["start_method"]
    expected = scenario.expected(workers, start_method)
    evidence = run / row["evidence"] if row["evidence"] else None
    known = row["reason"] + _cause_text(evidence)
    limit_s = stall_s * scenario.budgets + LATE_S
    silent_s = _silent_s(row, evidence)
    named = None if row["verdict"] == "ok" else is_named(scenario, workers, known)
    problems = []
    if row["verdict"] == "skipped" and row["reason"] == NOT_TRIED:
        pass  # two cells failed in the same way
    elif row["verdict"] not in expected:
        problems.append(f"{row['verdict']}, not {' or '.join(expected)}")
    elif row["verdict"] != "ok":
        if row["verdict"] in _HANGS and (silent_s is None or silent_s > limit_s):
            problems.append(f"silent for {silent_s} s, limit {limit_s:g} s")
        if not named:
            problems.append("culprit or line not named")
        if not row["reason"]:
            problems.append("no reason")
        if evidence is None or not any(evidence.iterdir()):
            problems.append("no evidence")
    return SeenTrial(
        scenario=scenario.name, workers=workers, start_method=start_method, launch=row["launch"],
        expected=expected, verdict=row["verdict"], reason=row["reason"], wall_s=row["wall_s"],
        silent_s=silent_s, limit_s=limit_s, named=named, problems=tuple(problems),
    )  # fmt: skip


def is_named(scenario: Scenario, workers: int, known: str) -> bool:
    """Whether the words name the guilty process and, if there is one, a guilty line.

    A line is named as `file.py:12`, or as in a traceback.
    """
    if scenario.culprit(workers) == "worker" and not _WORKER.search(known):
        return False
    places = [line.rpartition(":") for line in scenario.guilty_lines]
    return not places or any(
        re.search(rf'\b{re.escape(file)}(:|\\?", line ){number}\b', known) is not None
        for file, _, number in places
    )


def _cause_text(evidence: Path | None) -> str:
    path = None if evidence is None else evidence / "cause.json"
    return f" {path.read_text('utf-8')}" if path is not None and path.is_file() else ""


def _silent_s(row: dict[str, Any], evidence: Path | None) -> float | None:
    """Seconds from the last progress to the verdict."""
    path = None if evidence is None else evidence / "verdict.json"
    if path is not None and path.is_file():
        recorded = json.loads(path.read_text("utf-8")).get("detected_after_s")
        if recorded is not None:
            return float(recorded)
    match = _SILENT.search(row["reason"])
    if match is None or not any(match.groups()):
        return None
    return 60 * float(match[1] or 0) + float(match[2] or 0)
