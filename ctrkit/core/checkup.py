"""The results of `ctrkit doctor` as frozen dataclasses: limits, hazards, the whole checkup."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ctrkit.core.child_records import Examination, Inspection
from ctrkit.core.config import Cell
from ctrkit.core.script_records import ScriptSeen

#: a refusal is not run; a warning is run and shown; a note is only worth knowing
Level = Literal["refusal", "warning", "note"]
LEVELS: tuple[Level, ...] = ("refusal", "warning", "note")


@dataclass(frozen=True, kw_only=True)
class Hazard:
    """A known way for a cell to fail: what happens, what to do instead, and where it is told."""

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
        """One line for the row of a refused cell."""
        return f"{self.text}; {self.advice}" + (
            f" ({', '.join(self.references)})" if self.references else ""
        )


@dataclass(frozen=True, kw_only=True)
class MachineLimits:
    """Facts of a machine. `start_method` is what multiprocessing uses where none is named.

    `memory_bytes` is what is available now, at most what a control group still allows: then
    `memory_is_capped`. `cores` are those it may use; `visible_cores` is what every library counts,
    and `cpu_quota_cores` what the control group allows of them, None without a quota. `open_files`
    is the soft limit of a process, None where there is none. `shm_bytes` is what is free of
    /dev/shm, None where there is no such folder (macOS). `long_temporary_folder` is the temporary
    folder where its name is too long for sockets, `short_temporary_folder` what is taken instead.
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
    """A hazard with the cells that meet it, worded for the heaviest of them."""

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
    """All that doctor says. `invalid` are values that were asked for and that make no cell.

    `rules` is how many rules were asked of each cell; `allowances` are of the cell with the most
    workers, `versions` by package. `script`: what was seen of a script, which had to be started.
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
