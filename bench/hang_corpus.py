"""The corpus of failing and healthy loaders: reads what each one declares, without running it."""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "tests" / "integration" / "scenarios"
WORKERS = (0, 1, 2)
START_METHODS = ("fork", "spawn", "forkserver")
_MARK = "# guilty"
_KEYS = {
    "title", "cells", "guilty", "guilty_file", "budgets", "needs", "control", "burns",
    "stall_timeout_s",
}  # fmt: skip
_GROUPS = (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup"))


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One file of the corpus.

    Args:
        cells: the right verdicts for "0" (no workers) and for each start method. A cell that is
            missing makes no sense for this scenario.
        guilty: "worker" (without workers it is the main process), "main", or None.
        guilty_lines: `file.py:line` of each line that may be named; empty if no line can be
            known, as after a process was killed.
        budgets: the verdict must come within this many stall timeouts.
        needs: what the machine must have, of "linux", "root" and "cgroup".
        control: whether nothing is wrong with it, so that any verdict but `ok` is a false alarm.
        burns: whether it burns CPU, so that nothing else should be measured meanwhile.
        stall_timeout_s: its own limit of silence, if it needs another than the others.
    """

    name: str
    path: Path
    title: str
    cells: dict[str, tuple[str, ...]]
    guilty: str | None
    guilty_lines: tuple[str, ...] = ()
    budgets: int = 1
    needs: tuple[str, ...] = ()
    control: bool = False
    burns: bool = False
    stall_timeout_s: float | None = None

    def expected(self, workers: int, start_method: str | None) -> tuple[str, ...]:
        """The right verdicts of a cell; empty if the cell makes no sense."""
        return self.cells.get(str(start_method) if workers else "0", ())

    def axes(
        self, workers: Sequence[int], start_methods: Sequence[str]
    ) -> tuple[list[int], list[str]]:
        """The worker counts and start methods that make sense for it."""
        methods = [method for method in start_methods if method in self.cells]
        counts = [count for count in workers if (methods if count else "0" in self.cells)]
        return counts, methods if any(counts) else []

    def culprit(self, workers: int) -> str | None:
        """The process that a cell's verdict must name: "worker", "main" or None."""
        return "main" if self.guilty == "worker" and not workers else self.guilty


def load_corpus(folder: Path = FOLDER) -> list[Scenario]:
    """All scenarios, by name.

    Raises:
        ValueError: a file has no declaration, or one with an unknown field.
    """
    return [load_scenario(path) for path in sorted(folder.glob("*.py"))]


def load_scenario(path: Path) -> Scenario:
    """The scenario in a file, from its literal `EXPECT`; the file is not run."""
    text = path.read_text("utf-8")
    declared = _declaration(text, path)
    if unknown := declared.keys() - _KEYS:
        raise ValueError(f"{path}: EXPECT has unknown keys: {', '.join(sorted(unknown))}")
    cells = {
        cell: (verdicts,) if isinstance(verdicts, str) else tuple(verdicts)
        for cell, verdicts in declared["cells"].items()
    }
    return Scenario(
        name=path.stem,
        path=path,
        title=declared["title"],
        cells=cells,
        guilty=declared["guilty"],
        guilty_lines=_marked(path.parent / declared.get("guilty_file", path.name)),
        budgets=declared.get("budgets", 1),
        needs=tuple(declared.get("needs", ())),
        control=declared.get("control", False),
        burns=declared.get("burns", False),
        stall_timeout_s=declared.get("stall_timeout_s"),
    )


def _declaration(text: str, path: Path) -> dict[str, Any]:
    for statement in ast.parse(text).body:
        if isinstance(statement, ast.Assign):
            names = [target.id for target in statement.targets if isinstance(target, ast.Name)]
            if names == ["EXPECT"]:
                return dict(ast.literal_eval(statement.value))
    raise ValueError(f"{path}: has no EXPECT = {{...}}")


def _marked(path: Path) -> tuple[str, ...]:
    lines = path.read_text("utf-8").splitlines()
    marked = (number for number, line in enumerate(lines, start=1) if line.endswith(_MARK))
    return tuple(f"{path.name}:{number}" for number in marked)


def unmet(scenario: Scenario) -> str | None:
    """Why the scenario cannot be run here; None if it can."""
    if "linux" in scenario.needs and not sys.platform.startswith("linux"):
        return "needs Linux"
    if "root" in scenario.needs and os.geteuid() != 0:
        return "needs root"
    if "cgroup" in scenario.needs and not _may_make_group():
        return "needs a memory control group that can be written to"
    return None


def _may_make_group() -> bool:
    """Whether a memory control group can be made; it makes one and removes it."""
    version_1 = (_GROUPS[0] / "cgroup.procs").exists()
    group = _GROUPS[0 if version_1 else 1] / f"ctrkit-oom-try-{os.getpid()}"
    try:
        if not version_1:
            (_GROUPS[1] / "cgroup.subtree_control").write_text("+memory")
        group.mkdir()
        may = (group / ("memory.limit_in_bytes" if version_1 else "memory.max")).exists()
        group.rmdir()
    except OSError:
        return False
    return may


def remove_groups() -> None:
    """Remove the control groups that scenarios left behind; one with processes in it stays."""
    for root in _GROUPS:
        for group in root.glob("ctrkit-oom-*"):
            with suppress(OSError):
                group.rmdir()
