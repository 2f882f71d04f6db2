"""How long each stage of a child may be silent, and why."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from ctrkit.core.config import Cell
from ctrkit.core.progress import Stage
from ctrkit.core.units import format_duration

#: A script's silence before its first batch, as long as nothing is known of it: it may download.
_UNKNOWN_STARTUP_S, _UNKNOWN_BATCH_S = 600.0, 300.0
#: Another launch may take so many times what the first one took: workers import it anew.
_UNSURE = 10.0
COMPUTE_STAGES = (Stage.DATA, Stage.MODEL, Stage.FIRST_BATCH, Stage.STEP, Stage.VALIDATION)


@dataclass(frozen=True, kw_only=True)
class StageLimit:
    """The longest silence of a stage: `idle_s`, or `burning_s` while the tree burns CPU."""

    idle_s: float
    burning_s: float
    reason: str


@dataclass(frozen=True, kw_only=True)
class TimeLimits:
    """The rules that give every stage its limit; all figures in seconds can be set.

    `steady_factor` times the median step, at least `steady_least_s`, is the limit of a step once
    `enough_steps` were seen. torch waits 5 s for each worker that will not end, at shutdown and
    inside the last `next()` of an epoch: `per_worker_s` leaves room for it. `unseen_device_s` is
    for first steps on a device whose work cannot be seen from outside. `stall_timeout_s`, where it
    is set, is the limit of every stage.
    """

    workers: int = 0
    device: str = "cpu"
    startup_s: float = 60.0
    first_batch_s: float = 60.0
    steady_least_s: float = 30.0
    steady_factor: float = 20.0
    enough_steps: int = 3
    validation_s: float = 60.0
    checkpoint_s: float = 60.0
    per_worker_s: float = 10.0
    shutdown_least_s: float = 5.0
    exit_s: float = 10.0
    max_step_s: float = 600.0
    unseen_device_s: float = 300.0
    stall_timeout_s: float | None = None

    def with_stall_timeout(self, stall_timeout_s: float) -> TimeLimits:
        """The same, but with this limit for every stage."""
        return dataclasses.replace(self, stall_timeout_s=stall_timeout_s)

    def of_script(
        self, startup_s: float | None = None, first_batch_s: float | None = None
    ) -> TimeLimits:
        """The same rules for a script, which may load anything before it trains.

        Args:
            startup_s: what its start took when it was launched before; None at the first launch.
            first_batch_s: what its first batch took then.
        """
        startup_s = _UNKNOWN_STARTUP_S if startup_s is None else _UNSURE * startup_s
        first_batch_s = _UNKNOWN_BATCH_S if first_batch_s is None else _UNSURE * first_batch_s
        return dataclasses.replace(
            self,
            startup_s=max(self.startup_s, startup_s),
            first_batch_s=max(self.first_batch_s, first_batch_s),
        )

    def of_cell(self, cell: Cell) -> TimeLimits:
        """The same rules for this cell's workers and device."""
        return dataclasses.replace(self, workers=cell.workers, device=cell.device)

    def in_words(self) -> str:
        """One line of what is allowed, before anything is measured."""
        if self.stall_timeout_s is not None:
            every = format_duration(self.stall_timeout_s)
            return f"silence of {every} counts as a hang, twice that while CPU burns"
        stages = (
            ("start-up", self.startup_s), ("a first batch", self.first_batch_s),
            ("validation", self.validation_s), ("a checkpoint", self.checkpoint_s),
        )  # fmt: skip
        listed = ", ".join(f"{format_duration(allowed_s)} in {what}" for what, allowed_s in stages)
        return (
            f"silence counts as a hang after {listed}, and in a step after "
            f"{self.steady_factor:g} x the median (at least {format_duration(self.steady_least_s)})"
        )

    def for_stage(self, stage: Stage, steps_s: Sequence[float] = ()) -> StageLimit:
        """The limit of a stage, given the seconds of the steady steps seen so far."""
        if self.stall_timeout_s is not None:
            allowed_s = self.stall_timeout_s
            return StageLimit(
                idle_s=allowed_s, burning_s=2 * allowed_s, reason="the stall timeout that was given"
            )
        idle_s, reason = self._idle(stage, steps_s)
        burning_s = 2 * idle_s
        compares = stage in (Stage.STEP, Stage.VALIDATION) and len(steps_s) >= self.enough_steps
        if stage in COMPUTE_STAGES and not compares:
            burning_s = max(burning_s, self.max_step_s)
        return StageLimit(idle_s=idle_s, burning_s=burning_s, reason=reason)

    def _idle(self, stage: Stage, steps_s: Sequence[float]) -> tuple[float, str]:
        shutdown_s = self.per_worker_s * self.workers + self.shutdown_least_s
        unwind = f"{self.per_worker_s:g} s for each of {self.workers} workers to end"
        steady_s, steady = self._steady(steps_s)
        match stage:
            case Stage.IMPORT | Stage.DATA | Stage.MODEL:
                return self.startup_s, "start-up"
            case Stage.FIRST_BATCH:
                return self.first_batch_s, "first batch of an epoch, with the start of its workers"
            case Stage.STEP:
                return max((steady_s, steady), (shutdown_s, unwind))
            case Stage.METRICS:
                return self.validation_s, "metrics"
            case Stage.EPOCH_BOUNDARY:
                return max((self.startup_s, "end of an epoch"), (shutdown_s, unwind))
            case Stage.VALIDATION:
                return max((self.validation_s, "validation"), (steady_s, steady))
            case Stage.CHECKPOINT:
                return self.checkpoint_s, "checkpoint"
            case Stage.SHUTDOWN:
                return shutdown_s, unwind
            case Stage.DONE:
                return self.exit_s, "exit of a process that has returned from main"

    def _steady(self, steps_s: Sequence[float]) -> tuple[float, str]:
        if len(steps_s) < self.enough_steps:
            if self.device == "cpu":
                return self.first_batch_s, f"fewer than {self.enough_steps} steps to compare with"
            return self.unseen_device_s, f"first steps on {self.device}, whose work is not seen"
        median_s = statistics.median(steps_s)
        scaled_s = self.steady_factor * median_s
        if scaled_s > self.steady_least_s:
            return scaled_s, f"{self.steady_factor:g} x the median step of {median_s:.3g} s"
        return self.steady_least_s, f"the least for a step; the median is {median_s:.3g} s"


#: For the real run of a script, of which less is known: what it does before its first batch and
#: between its epochs may wait for a network, and to end it by mistake is dear.
SCRIPT_LIMITS = TimeLimits(
    startup_s=1800.0,
    first_batch_s=600.0,
    steady_least_s=300.0,
    validation_s=1800.0,
    checkpoint_s=900.0,
    shutdown_least_s=900.0,
    exit_s=300.0,
    max_step_s=3600.0,
    unseen_device_s=900.0,
)
