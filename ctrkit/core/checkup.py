"""The results of `ctrkit doctor` as frozen dataclasses: limits, hazards, the whole checkup."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ctrkit.core.child_records import Examination, Inspection
from ctrkit.core.config import Cell
from ctrkit.core.script_records import ScriptSeen

#: A cell with a refusal is not run. A warning is shown, and the cell is run. A note only informs.
Level = Literal["refusal", "warning", "note"]
LEVELS: tuple[Level, ...] = ("refusal", "warning", "note")


@dataclass(frozen=True, kw_only=True)
class Hazard:
    """A known way for a cell to fail: what happens, what to do instead, and a reference."""

    name: str
    level: Level = "warning"
    text: str
    advice: str
    references: tuple[str, ...] = ()

    @property
    def refuses(self) -> bool:
        """Whether the cell is not run."""
        return self.level == "refusal"

    @property
    def reason(self) -> str:
        """One line for the table row of a refused cell."""
        return f"{self.text}; {self.advice}" + (
            f" ({', '.join(self.references)})" if self.references else ""
        )


@dataclass(frozen=True, kw_only=True)
class MachineLimits:
    """Limits of a machine.

    Attributes:
        start_method: the start method that multiprocessing uses by default.
        memory_bytes: memory available now, at most what a control group still allows.
        memory_is_capped: whether a control group limits `memory_bytes`.
        cores: cores that this process may use.
        visible_cores: cores that every library counts.
        cpu_quota_cores: cores' worth of time that the control group allows; None without a quota.
        open_files: soft limit of open files per process; None without a limit.
        shm_bytes: free space of /dev/shm; None if there is no such folder (macOS).
        long_temporary_folder: the temporary folder, if its name is too long for sockets.
        short_temporary_folder: the folder used instead.
    """

    system: str = "Linux"
    python: str = "3.11"
    cores: int | None = None
    visible_cores: int | None = None
    cpu_quota_cores: float | None = None
    memory_bytes: int | None = None
    memory_is_capped: bool = False
    shm_bytes: int | None = None
    open_files: int | None = None
    start_methods: tuple[str, ...] = ("fork", "spawn", "forkserver")
    start_method: str = "fork"
    long_temporary_folder: str = ""
    short_temporary_folder: str = ""

    @property
    def python_version(self) -> tuple[int, ...]:
        """`(3, 12)` of `3.12.1`."""
        return tuple(int(part) for part in self.python.split(".")[:2])


@dataclass(frozen=True, kw_only=True)
class HazardFinding:
    """A hazard and the cells that meet it; the words describe the heaviest of them."""

    hazard: Hazard
    cells: tuple[Cell, ...]


@dataclass(frozen=True, kw_only=True)
class StageAllowance:
    """How long a stage may be silent: `idle_s`, or `burning_s` while the tree burns CPU."""

    stage: str
    idle_s: float
    burning_s: float
    reason: str


@dataclass(frozen=True, kw_only=True)
class Checkup:
    """Everything that `ctrkit doctor` reports.

    Attributes:
        invalid: cells that the user asked for and that cannot exist, with reasons.
        rules: the number of rules checked on each cell.
        allowances: time limits of the cell with the most workers.
        versions: version of each package.
        script: what was seen of a script, which had to be started for that.
    """

    inspection: Inspection
    examination: Examination
    limits: MachineLimits
    phase: str = ""
    cells: tuple[Cell, ...] = ()
    invalid: tuple[tuple[Cell, str], ...] = ()
    findings: tuple[HazardFinding, ...] = ()
    notes: tuple[str, ...] = ()
    rules: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)
    allowances: tuple[StageAllowance, ...] = ()
    script: ScriptSeen | None = None

    @property
    def uses_start_method(self) -> bool:
        """Whether the workload starts its workers as a cell says."""
        return "start_method" in self.inspection.axes

    def of_level(self, level: Level) -> tuple[HazardFinding, ...]:
        """The findings of a level."""
        return tuple(finding for finding in self.findings if finding.hazard.level == level)
