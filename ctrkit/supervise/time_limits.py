"""How long each stage of a child may be silent, and why that long."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ctrkit.core.config import Cell
from ctrkit.core.progress import Stage
from ctrkit.core.units import format_duration

#: Limits for a script before its first batch while nothing is known about it: it may download.
_UNKNOWN_STARTUP_S, _UNKNOWN_BATCH_S = 600.0, 300.0
#: Another launch may take this factor longer than the first one: workers import anew.
_UNSURE = 10.0
COMPUTE_STAGES = (
    Stage.DATA, Stage.MODEL, Stage.FIRST_BATCH, Stage.STEP, Stage.VALIDATION, Stage.METRICS,
)  # fmt: skip
#: A stage may take this factor longer than ever before.
_LEARNED = 5.0
#: After a verdict, a stage may be silent this factor longer than it was, up to RAISED_MOST_S.
_RAISED, RAISED_MOST_S = 3.0, 1800.0
_UNMEASURED = "nothing is known yet about how long this stage takes"


@dataclass(frozen=True, kw_only=True)
class StageLimit:
    """The longest silence allowed in a stage: `idle_s`, or `burning_s` while the tree uses CPU."""

    idle_s: float
    burning_s: float
    reason: str


@dataclass(frozen=True, kw_only=True)
class StageTimes:
    """What is known about stages from before, so that slow ones are not taken for hung.

    Args:
        longest_s: per stage, the longest silence that ended by itself, in any launch so far.
        raised_s: the limit of a stage after a verdict on it.
        is_run: whether it is a real run, for which waiting is worth more; a probe goes on with its
            next cell.
    """

    longest_s: Mapping[Stage, float] = field(default_factory=dict)
    raised_s: Mapping[Stage, float] = field(default_factory=dict)
    is_run: bool = False

    def seen(self, longest_s: Mapping[Stage, float]) -> StageTimes:
        """The same, with another launch added."""
        stages = {*self.longest_s, *longest_s}
        both = {one: max(self.longest_s.get(one, 0.0), longest_s.get(one, 0.0)) for one in stages}
        return dataclasses.replace(self, longest_s=both)

    def after_verdict(self, stage: Stage, silent_s: float) -> StageTimes:
        """The same, with a higher limit for a stage that was judged after this silence."""
        raised_s = max(silent_s, min(_RAISED * silent_s, RAISED_MOST_S))
        return dataclasses.replace(self, raised_s={**self.raised_s, stage: raised_s})


@dataclass(frozen=True, kw_only=True)
class TimeLimits:
    """The rules for the limit of every stage; each number of seconds can be set.

    Attributes:
        steady_factor: times the median step, this is a step's limit once `enough_steps` were seen.
        steady_least_s: the least limit of a step.
        per_worker_s: added per worker: torch waits 5 s for each one that does not end, at shutdown
            and in the last `next()` of an epoch.
        unseen_device_s: limit for first steps on a device whose work cannot be seen from outside.
        unmeasured_s: limit for a stage of a real run that is still unknown: metrics, a slow disk, a
            remote store.
        stall_timeout_s: if set, the limit of every stage.
        budget_s: if set, a probe's budget, which bounds the silence of its imports.
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
    unmeasured_s: float = 600.0
    stall_timeout_s: float | None = None
    budget_s: float | None = None

    def within_budget(self, budget_s: float) -> TimeLimits:
        """The same for a probe: its imports may be silent for no longer than its budget lasts.

        A limit that the user has set stays.
        """
        if self.stall_timeout_s is not None or not self._is_default(Stage.IMPORT):
            return self
        return dataclasses.replace(self, budget_s=budget_s)

    def with_stall_timeout(self, stall_timeout_s: float) -> TimeLimits:
        """The same with this limit for every stage."""
        return dataclasses.replace(self, stall_timeout_s=stall_timeout_s)

    def of_script(
        self, startup_s: float | None = None, first_batch_s: float | None = None
    ) -> TimeLimits:
        """The same rules for a script, which may load anything before it trains.

        Args:
            startup_s: how long its earlier launch took to start; None at the first launch.
            first_batch_s: how long its first batch took then.
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

    def in_words(self, times: StageTimes | None = None) -> str:
        """The limits in one line, before anything is measured."""
        times = times or StageTimes()
        if self.stall_timeout_s is not None:
            every = format_duration(self.stall_timeout_s)
            return (
                f"ctrkit stops a process that makes no progress for {every}, or for twice as long "
                "while it uses the CPU"
            )
        stages = (
            ("start-up", Stage.IMPORT), ("a first batch", Stage.FIRST_BATCH),
            ("validation", Stage.VALIDATION), ("metrics", Stage.METRICS),
            ("a checkpoint", Stage.CHECKPOINT),
        )  # fmt: skip
        by_limit: dict[str, list[str]] = {}  # name stages with the same limit together
        for what, stage in stages:
            limit = format_duration(self.for_stage(stage, (), times).idle_s)
            by_limit.setdefault(limit, []).append(what)
        listed = ", ".join(f"{limit} in {_either(them)}" for limit, them in by_limit.items())
        learns = (
            f"; a stage that was measured may take {_LEARNED:g} times its longest so far"
            if times.is_run
            else ""
        )
        return (
            f"ctrkit stops a process that makes no progress for {listed}, or in a step for "
            f"{self.steady_factor:g} times the median step (at least "
            f"{format_duration(self.steady_least_s)}){learns}"
        )

    def for_stage(
        self, stage: Stage, steps_s: Sequence[float] = (), times: StageTimes | None = None
    ) -> StageLimit:
        """The limit of a stage.

        Args:
            stage: the child's stage.
            steps_s: seconds of the steady steps seen so far.
            times: what is known about its stages.
        """
        times = times or StageTimes()
        raised_s = times.raised_s.get(stage, 0.0)
        idle_s, reason = self.stall_timeout_s, "the given --stall-timeout"
        if idle_s is None:
            idle_s, reason = self._learned(stage, steps_s, times)
        if raised_s > idle_s:
            idle_s, reason = raised_s, "raised after the last hang in this stage"
        most_s = self._most_of_import_s(stage)
        if idle_s > most_s:
            idle_s, reason = (
                most_s,
                (
                    f"the probe's budget is {format_duration(self.budget_s or 0.0)}; give a longer "
                    "--budget if the imports take so long"
                ),
            )
        burning_s = (1.5 if reason is _UNMEASURED else 2) * idle_s
        compares = stage in (Stage.STEP, Stage.VALIDATION) and len(steps_s) >= self.enough_steps
        if stage in COMPUTE_STAGES and not compares and self.stall_timeout_s is None:
            burning_s = max(burning_s, self.max_step_s)
        return StageLimit(idle_s=idle_s, burning_s=burning_s, reason=reason)

    def _most_of_import_s(self, stage: Stage) -> float:
        """The longest silence of imports: the budget, but a minute at least (a slow disk).

        A workload's file is imported in the stage of its data.
        """
        if self.budget_s is None or stage not in (Stage.IMPORT, Stage.DATA):
            return math.inf
        return max(TimeLimits.startup_s, self.budget_s)

    def _learned(
        self, stage: Stage, steps_s: Sequence[float], times: StageTimes
    ) -> tuple[float, str]:
        """The rule's limit, or the larger one known from before."""
        idle_s, reason = self._idle(stage, steps_s)
        if stage in (Stage.SHUTDOWN, Stage.DONE):
            return idle_s, reason
        longest_s = times.longest_s.get(stage, 0.0)
        if _LEARNED * longest_s > idle_s:
            took = format_duration(longest_s)
            return _LEARNED * longest_s, f"{_LEARNED:g} x the longest of this stage, {took}"
        is_known = longest_s > 0 or (stage is Stage.STEP and len(steps_s) >= self.enough_steps)
        if times.is_run and not is_known and self._is_default(stage) and self.unmeasured_s > idle_s:
            return self.unmeasured_s, _UNMEASURED
        return idle_s, reason

    def _is_default(self, stage: Stage) -> bool:
        """Whether the user has not set the limit of this stage."""
        name = _SETTINGS.get(stage)
        return name is None or getattr(self, name) == _DEFAULTS[name]

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
            return (
                scaled_s,
                f"{self.steady_factor:g} x the median step of {format_duration(median_s)}",
            )
        return (
            self.steady_least_s,
            f"the least for a step; the median is {format_duration(median_s)}",
        )


#: Limits for the real run of a script, about which less is known: before its first batch and
#: between epochs it may wait for a network, and ending it by mistake is costly.
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


def _either(names: Sequence[str]) -> str:
    """`a step`, `a step or validation`, `start-up, a step or validation`."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


_SETTINGS = {
    Stage.IMPORT: "startup_s", Stage.DATA: "startup_s", Stage.MODEL: "startup_s",
    Stage.FIRST_BATCH: "first_batch_s", Stage.STEP: "first_batch_s",
    Stage.EPOCH_BOUNDARY: "startup_s", Stage.VALIDATION: "validation_s",
    Stage.METRICS: "validation_s", Stage.CHECKPOINT: "checkpoint_s",
}  # fmt: skip
_DEFAULTS = {f.name: f.default for f in dataclasses.fields(TimeLimits)}
