"""Watches a running child (progress, process tree, stop requests) until something is decided.

`watchdog` decides what a silence means, `endings` what the end means.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ctrkit.core.bystander import Bystander
from ctrkit.core.progress import (
    Progress,
    Stage,
    WorkerProgress,
    WorkerStage,
    read_progress,
    read_ranks,
    read_workers,
)
from ctrkit.supervise.endings import End
from ctrkit.supervise.explain.passive import waits_for_keys
from ctrkit.supervise.gpu import GpuReader, GpuSample, GpuUse, added
from ctrkit.supervise.launch import Child
from ctrkit.supervise.memory_kills import KillCounters
from ctrkit.supervise.sampler import TreeSample, TreeSampler, host_slept_s
from ctrkit.supervise.stop import StopRequest, is_out_of_patience
from ctrkit.supervise.time_limits import StageLimit, StageTimes, TimeLimits
from ctrkit.supervise.watchdog import Silence, Verdict, add_look, is_quiet, judge, step_seconds

_POLL_S = 0.2
_SAMPLE_S, _SUSPECT_SAMPLE_S = 2.0, 0.5
_SUSPECT_S = 2.0  # before the end of a limit
_URGE_S = 5.0  # after a stop request: until the loop gives up waiting for its loader
_GPU_S = 1.0  # the library's own figures are means of up to a second
_WEIGH_WITHIN_S = 5.0  # after more silence than this, memory is not read
_STEPS_KEPT = 101


@dataclass(frozen=True, kw_only=True)
class GpuLook:
    """Samples of the run's GPUs at `taken_s` (monotonic)."""

    taken_s: float
    gpus: tuple[GpuSample, ...]


@dataclass(frozen=True, kw_only=True)
class Tick:
    """What a display may show, a few times a second."""

    wall_s: float
    silent_s: float
    stage: Stage
    limit: StageLimit
    progress: Progress | None
    sample: TreeSample | None
    gpus: GpuLook | None = None


@dataclass
class Watch:
    """What is known about the running child; `update` reads its progress and samples its tree."""

    child: Child
    time_limits: TimeLimits
    slept_s: float
    sampler: TreeSampler
    silence: Silence
    progress_path: Path
    kills: KillCounters = field(default_factory=KillCounters)
    workers: list[WorkerProgress] = field(default_factory=list)
    progress: Progress | None = None
    sample: TreeSample | None = None
    steps_s: list[float] = field(default_factory=list)
    next_sample_s: float = 0.0
    stopped_s: float = 0.0
    bystander: Bystander = field(default_factory=Bystander)
    is_script: bool = False
    times: StageTimes = field(default_factory=StageTimes)
    longest_s: dict[Stage, float] = field(default_factory=dict)  # longest silences of this launch
    gpu_reader: GpuReader | None = None
    gpus: GpuLook | None = None
    gpu_use: GpuUse = field(default_factory=GpuUse)  # while it made steps

    @classmethod
    def begin(
        cls,
        child: Child,
        time_limits: TimeLimits,
        slept_s: float,
        times: StageTimes,
        *,
        is_script: bool = False,
        gpu_reader: GpuReader | None = None,
    ) -> Watch:
        """The watch of a child that was just launched; the host had slept for `slept_s` before."""
        silence = Silence.begin(child.spawned_at_s)
        sampler = TreeSampler(child.pid, shares_with=child.server_pid)
        return cls(
            child, time_limits, slept_s, sampler, silence, child.progress_path,
            is_script=is_script, times=times, gpu_reader=gpu_reader,
        )  # fmt: skip

    def may_judge(self, now_s: float) -> bool:
        """Whether a silence may be judged: for a script, while its training process lives.

        A script that asks its user something (`input`, a debugger) may wait for the answer for
        ever. Until it imports torch it may do anything; only a probe's budget bounds that.
        """
        if not self.is_script:
            return True
        is_seen = self.progress is not None and self.progress.stage is not Stage.IMPORT
        if not is_seen and self.time_limits.budget_s is None:
            return False
        processes = self.sample.processes if self.sample is not None else ()
        if any(waits_for_keys(one.pid) for one in processes):
            self._begin_silence(now_s)
            return False
        return self.progress is None or any(one.pid == self.progress.pid for one in processes)

    @property
    def stage(self) -> Stage:
        return Stage.IMPORT if self.progress is None else self.progress.stage

    @property
    def limit(self) -> StageLimit:
        times = self.times.seen(self.longest_s)
        return self.time_limits.for_stage(self.stage, self.steps_s, times)

    @property
    def awaited(self) -> set[int]:
        """Pids of processes that the loop waits for: busy workers, else late ranks, else itself."""
        busy = {one.pid for one in self.workers if one.stage is not WorkerStage.IDLE}
        late = set(self.late_ranks().values())
        if self.is_script and not late and self.progress is not None:
            late = {self.progress.pid}  # not the process that started it
        return busy or late or {self.child.pid}

    def late_ranks(self) -> dict[int, int]:
        """Ranks (with pids) that others wait for in a collective; all ranks if none waits."""
        ranks = read_ranks(self.child.folder)
        if self.is_script and self.sample is not None:  # nothing waits for a rank that has ended
            alive = {one.pid for one in self.sample.processes}
            ranks = [one for one in ranks if one.pid in alive]
        late = [one for one in ranks if one.stage is not WorkerStage.IDLE]
        return {one.worker: one.pid for one in late or ranks}

    def script_ranks(self) -> dict[int, int]:
        """Pids of a script's training processes, and their ranks."""
        return {one.pid: one.worker for one in read_ranks(self.child.folder)}

    def _follow_another_rank(self) -> None:
        """Follow a script's first living rank, when the followed rank has ended.

        Ranks need not end together, and one that stays behind may hang.
        """
        alive = {one.pid for one in self.sample.processes} if self.sample is not None else set()
        if self.progress is None or not alive or self.progress.pid in alive:
            return
        own = alive.intersection(self.script_ranks())
        for path in sorted(self.child.folder.glob("rank-*/progress.bin")):
            found = read_progress(path)
            if found is not None and found.pid in own:
                self.progress_path = path
                return

    def tick(self, now_s: float) -> Tick:
        """The state at this moment, for displays."""
        return Tick(
            wall_s=now_s - self.child.spawned_at_s,
            silent_s=self.silence.length_s(now_s),
            stage=self.stage,
            limit=self.limit,
            progress=self.progress,
            sample=self.sample,
            gpus=self.gpus,
        )

    def update(self, now_s: float) -> None:
        """Read the progress and, if due, sample the tree."""
        self._read(now_s)
        self.child.bound_output()
        slept_s = host_slept_s()
        if slept_s > self.slept_s + 1 or self.child.output_is_blocked:
            self._begin_silence(now_s)
            self.slept_s = slept_s
        self._look_at_gpus(now_s)
        if now_s < self.next_sample_s:
            return
        silent_s = self.silence.length_s(now_s)
        suspect = silent_s > min(_SUSPECT_S, self.limit.idle_s - _SUSPECT_S)
        self.sample = self.sampler.sample(now_s, weigh=silent_s < _WEIGH_WITHIN_S, waits=suspect)
        self.silence = add_look(self.silence, self.sample)
        self._read_workers(now_s)
        if self.is_script:
            self._follow_another_rank()
        self.kills.watch(process.pid for process in self.sample.processes)
        self.next_sample_s = now_s + (_SUSPECT_SAMPLE_S if self._is_suspect(now_s) else _SAMPLE_S)

    def _is_suspect(self, now_s: float) -> bool:
        return self.silence.length_s(now_s) > self.limit.idle_s - _SUSPECT_S

    def _look_at_gpus(self, now_s: float) -> None:
        """Sample the tree's GPUs; not for a child that may hang, since its driver may hang, too."""
        last_s = self.gpus.taken_s if self.gpus is not None else -_GPU_S
        known = self.gpu_reader is not None and self.sample is not None
        if not known or now_s - last_s < _GPU_S or self._is_suspect(now_s):
            return
        assert self.gpu_reader is not None
        assert self.sample is not None
        pids = {one.pid for one in self.sample.processes}
        found = self.gpu_reader.read(pids, uses_first=not self.is_script)
        self.gpus = GpuLook(taken_s=now_s, gpus=found)
        if self.stage is Stage.STEP:
            self.gpu_use = added(self.gpu_use, found)

    def _read_workers(self, now_s: float) -> None:
        """Count a worker's start or batch as progress; it can make only so many ahead."""
        assert self.sample is not None
        alive = {process.pid for process in self.sample.processes}
        workers = [one for one in read_workers(self.child.folder) if one.pid in alive]
        if {(one.pid, one.writes) for one in workers} - {
            (one.pid, one.writes) for one in self.workers
        }:
            self._learn(now_s)
            self._begin_silence(now_s)
        self.workers = workers

    def _begin_silence(self, now_s: float) -> None:
        self.stopped_s += self.silence.stopped_s
        self.silence = Silence.begin(now_s)

    def _read(self, now_s: float) -> None:
        before = self.progress
        try:
            progress = read_progress(self.progress_path)
        except (OSError, ValueError) as error:
            self.bystander.tell("the look for hangs, which reads the run's progress,", error)
            self._begin_silence(now_s)  # without a reading there is no silence to judge
            return
        if progress is None and before is not None:  # something has removed the file
            self._begin_silence(now_s)
        if progress is None or (before is not None and _mark(before) == _mark(progress)):
            return
        same = before is not None and before.pid == progress.pid
        step_s = step_seconds(before if same else None, progress, self.time_limits.workers)
        if step_s is not None:
            self.steps_s = [*self.steps_s[1 - _STEPS_KEPT :], step_s]
        self._learn(now_s)
        self.progress = progress
        self._begin_silence(now_s)

    def _learn(self, now_s: float) -> None:
        """There was progress: learn how long a silence of this stage may be."""
        length_s, stage = self.silence.length_s(now_s), self.stage
        self.longest_s[stage] = max(self.longest_s.get(stage, 0.0), length_s)


def _mark(progress: Progress) -> tuple[int, int]:
    """A value that changes with each write, of any process."""
    return progress.pid, progress.writes


@dataclass
class Stopping:
    """Passes a stop request on to the child, and says when the child must end."""

    child: Child
    stop: StopRequest
    grace_s: float
    is_run: bool  # a trial has nothing to save
    asked_s: float | None = None
    urged: bool = False

    def look(self, progress: Progress | None, stage: Stage, now_s: float) -> End | None:
        """Tell the child when it is time; returns its end if it must end now."""
        stop = self.stop
        if stop.end_now or (stop.finish and not self.is_run):
            return End(interrupted=True)
        if not stop.finish:
            return None
        if self.asked_s is None:
            self.asked_s = now_s
            self._tell(progress)
        if is_out_of_patience(
            stage, self.asked_s, now_s, grace_since_s=stop.grace_since_s, grace_s=self.grace_s
        ):
            return End(interrupted=True, cut_by_grace=True)
        if not self.urged and now_s - self.asked_s >= _URGE_S:
            self.urged = True
            self._tell(progress)
        return None

    def _tell(self, progress: Progress | None) -> None:
        # rank 0 writes the progress, and also stops the other ranks
        self.child.interrupt(None if progress is None else progress.pid)


@dataclass
class PassingOn:
    """Passes signals on to a script as they come, and ends it if it takes too long."""

    child: Child
    stop: StopRequest
    grace_s: float
    asked_s: float | None = None

    def look(self, progress: Progress | None, stage: Stage, now_s: float) -> End | None:
        """Pass on new signals; returns the script's end if it must end now."""
        for number in self.stop.take():
            self.child.pass_on(number)
        if not self.stop.finish:
            return None
        self.asked_s = now_s if self.asked_s is None else self.asked_s
        if self.stop.end_now:
            return End(interrupted=True)
        if now_s - self.asked_s >= self.grace_s:
            return End(interrupted=True, cut_by_grace=True)
        return None


def watch_until_end(
    watch: Watch,
    deadline_s: float | None,
    on_tick: Callable[[Tick], None] | None,
    stopping: Stopping | PassingOn,
) -> End:
    """Watch until the child ends, hangs, is cut or interrupted."""
    while True:
        exit_code = watch.child.wait(_POLL_S)
        now_s = time.monotonic()
        with watch.bystander.doing("a look at the run's processes"):
            watch.update(now_s)
        is_asked = stopping.stop.finish
        if exit_code is not None:
            return End(exit_code=exit_code, interrupted=is_asked)
        if (end := stopping.look(watch.progress, watch.stage, now_s)) is not None:
            return end
        decision = judge(watch.silence, now_s, watch.stage, watch.limit, watch.awaited)
        if isinstance(decision, Verdict) and watch.may_judge(now_s):
            silent_s = watch.silence.length_s(now_s)
            return End(hang=decision, interrupted=is_asked, silent_s=silent_s)
        overdue = deadline_s is not None and now_s >= deadline_s
        is_suspect = is_quiet(watch.silence, now_s, watch.steps_s) and watch.may_judge(now_s)
        if overdue and not is_suspect:  # nobody would ever judge what may not be judged
            return End(cut=True)
        if on_tick is not None:
            with watch.bystander.doing("what tells of the run"):
                on_tick(watch.tick(now_s))
