"""The records of a run folder, as frozen dataclasses.

The parent makes `TrialRecord`s, a `Recommendation` and a `RunInfo` from what its children write
(`child_records.py`). Nothing here does any I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from ctrkit.core.config import Cell, RunSizes, Watch, WorkloadSpec
from ctrkit.core.launch_spread import LaunchSpread
from ctrkit.core.script_records import ScriptAnswer

SCHEMA_VERSION = 1
VERDICTS = (
    "ok", "deadlock", "stalled", "worker-died", "out-of-memory", "crashed", "setup-failed",
    "shutdown-hang", "refused", "skipped",
)  # fmt: skip
#: Verdicts of a complete measurement. If only the process did not end, its result counts.
COMPLETE = ("ok", "shutdown-hang")


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """A row of `trials.parquet`, in launch order (contract: other programs read it)."""

    cell_id: str
    launch: int
    kind: str
    cell: Cell
    verdict: str
    reason: str = ""
    flags: list[str] = field(default_factory=list)
    rows_per_s: float | None = None
    step_s: float | None = None
    step_s_low: float | None = None
    step_s_high: float | None = None
    data_wait_share: float | None = None
    stage_s: dict[str, float] = field(default_factory=dict)
    startup_s: float | None = None
    first_batch_s: float | None = None
    epoch_restart_s: float | None = None
    validation_s: float | None = None
    metrics_s: float | None = None
    checkpoint_s: float | None = None
    warm_up_s: float | None = None
    peak_rss_bytes: int | None = None
    peak_device_bytes: int | None = None
    projected_epoch_s: float | None = None
    projected_epoch_s_low: float | None = None
    projected_epoch_s_high: float | None = None
    projected_total_s: float | None = None
    projected_total_s_low: float | None = None
    projected_total_s_high: float | None = None
    projected_first_epoch_s: float | None = None
    wall_s: float | None = None
    evidence: str | None = None


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What limits an epoch: the stage, its share, what removing it is worth, how sure that is.

    The share is of an epoch's time; for `unexplained` and `contention`, of a step's time.
    """

    stage: str
    share: float | None
    worth_x: float | None
    text: str
    confidence: str


@dataclass(frozen=True, kw_only=True)
class Option:
    """Something that the user could do instead, and how long the run would then take."""

    text: str
    projected_total_s: float | None


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a recommendation is about: the probed workload, its data, and the machine."""

    workload: WorkloadSpec
    workload_fingerprint: str | None = None
    data_fingerprint: str | None = None
    machine_fingerprint: str = ""


#: A flag of a projection: the loader has no second epoch, so only one is projected.
ONE_EPOCH = "one epoch only"


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """`recommendation.json` (contract: other programs read it).

    Projections are None for an endless loader; a `_high` is None if nothing bounds it.

    Attributes:
        launches: how many launches of its cell the probe made.
        probe: name of the probe's run folder.
        projected_epoch_s: any epoch; any but the first, if `projected_first_epoch_s` is set.
        projected_first_epoch_s: the first epoch, if it takes another time than the others.
        projected_terms_s: the parts of `projected_epoch_s` by name, as in `measure.projection`.
        stage_s: the longest silence of each stage in its trials, by the stage's label.
        origin: what was probed.
        projected_at: when, UTC; the projection is about a run that starts then.
        launch_spread: what was known before the probe about how launches differ.
    """

    cell: Cell
    reason: str
    tied: list[Cell] = field(default_factory=list)
    runner_up: Cell | None = None
    projected_epoch_s: float | None = None
    projected_epoch_s_low: float | None = None
    projected_epoch_s_high: float | None = None
    projected_total_s: float | None = None
    projected_total_s_low: float | None = None
    projected_total_s_high: float | None = None
    projected_startup_s: float | None = None
    projected_first_epoch_s: float | None = None
    projected_terms_s: dict[str, float] = field(default_factory=dict)
    projected_at: str | None = None
    launch_spread: LaunchSpread | None = None
    launches: int | None = None
    probe: str | None = None
    origin: Origin | None = None
    findings: list[Finding] = field(default_factory=list)
    options: list[Option] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    dataloader_kwargs: dict[str, Any] = field(default_factory=dict)
    script: ScriptAnswer | None = None
    stage_s: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class AnswerSoFar:
    """The answer of a probe that is still running; a line of `ctrkit probe --json-lines`.

    The other names are those of `Recommendation`.

    Attributes:
        basis: what it rests on. `measured`: `launches` launches of the whole cell. `predicted`: its
            training step and its loader, each measured alone. `bound`: the training step alone, so
            only the `_low` ends are known.
        launches: number of launches.
    """

    basis: Literal["measured", "predicted", "bound"]
    cell: Cell
    launches: int = 0
    step_s: float | None = None
    step_s_low: float | None = None
    step_s_high: float | None = None
    projected_epoch_s: float | None = None
    projected_epoch_s_low: float | None = None
    projected_epoch_s_high: float | None = None
    projected_total_s: float | None = None
    projected_total_s_low: float | None = None
    projected_total_s_high: float | None = None
    projected_first_epoch_s: float | None = None
    flags: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """`run.json`: written first, so that even a run that dies at once says what it was.

    Attributes:
        watch: the metric that decides on best.pt and patience, with its direction.
        pid: id of the process that runs it, or ran it last.
        pid_began_unix_s: when that process was started.
        place: where it was started (`this_place`); elsewhere the id means nothing.
        stage_s: the longest silence of each stage, by its label, of a real run that ended by
            itself.
        ending_s: mean seconds of an epoch's end so far (validation, metrics, checkpoint); None
            before the first.
        unheeded: axes of a cell that the loader does not take.
        warnings: torch's own warnings in a real run, and how often each came.
    """

    command: str
    argv: list[str]
    created: str
    environment: dict[str, Any]
    machine_fingerprint: str
    workload: WorkloadSpec
    workload_fingerprint: str | None = None
    data_fingerprint: str | None = None
    device_names: dict[str, str] = field(default_factory=dict)
    sizes: RunSizes | None = None
    watch: Watch | None = None
    cell: Cell | None = None
    projection: Recommendation | None = None
    status: str = "running"
    status_reason: str = ""
    wall_s: float | None = None
    budget_s: float | None = None
    pid: int | None = None
    pid_began_unix_s: float | None = None
    place: dict[str, str] = field(default_factory=dict)
    stage_s: dict[str, float] = field(default_factory=dict)
    ending_s: float | None = None
    unheeded: list[str] = field(default_factory=list)
    warnings: dict[str, int] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    @property
    def planned_epochs(self) -> int | None:
        """The number of epochs of the run; None if nothing says it."""
        if self.sizes is not None:
            return self.sizes.epochs
        epochs = self.workload.settings.get("epochs")
        return epochs if isinstance(epochs, int) else None
