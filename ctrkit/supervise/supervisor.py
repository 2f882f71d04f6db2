"""Runs one child to its end, whatever it does: watches, explains, cleans up, gives the verdict."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from ctrkit.core.config import ChildSpec
from ctrkit.core.files import write_json
from ctrkit.core.progress import (
    Progress,
    Stage,
    WorkerProgress,
    WorkerStage,
    read_progress,
    read_ranks,
    read_workers,
)
from ctrkit.core.records import ChildError
from ctrkit.core.stops import EXIT_CODE
from ctrkit.supervise.cleanup import Ended, subreaper
from ctrkit.supervise.endings import judge_exit, judge_hang, read_result, was_stopped
from ctrkit.supervise.explain.causes import Cause
from ctrkit.supervise.explain.evidence import examine, examine_ended, save_tails, tail
from ctrkit.supervise.explain.scene import Scene
from ctrkit.supervise.launch import Child
from ctrkit.supervise.memory_kills import KillCounters
from ctrkit.supervise.sampler import TreeSample, TreeSampler, host_slept_s
from ctrkit.supervise.stop import GRACE_S, StopRequest, is_out_of_patience
from ctrkit.supervise.time_limits import StageLimit, TimeLimits
from ctrkit.supervise.watchdog import (
    Silence,
    Verdict,
    add_look,
    is_quiet,
    judge,
    step_seconds,
)

_POLL_S = 0.2
_SAMPLE_S, _SUSPECT_SAMPLE_S = 2.0, 0.5
_SUSPECT_S = 2.0  # before the end of a limit
_URGE_S = 5.0  # after a stop was asked for: the loop gives up to wait for its loader
_WEIGH_WITHIN_S = 5.0  # of silence; later the memory figure is left alone
_STEPS_KEPT = 101


@dataclass(frozen=True, kw_only=True)
class Tick:
    """What a display may want to know, some times a second."""

    wall_s: float
    silent_s: float
    stage: Stage
    limit: StageLimit
    progress: Progress | None
    sample: TreeSample | None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a child ended.

    Args:
        verdict: one of `core.records.VERDICTS`; `skipped` where the deadline cut it or the user
            interrupted it.
        reason: a sentence, empty for `ok`.
        exit_code: of a child that ended by itself, negative for a signal; else None.
        wall_s: from launch to end or verdict.
        cpu_s: CPU seconds of the whole tree.
        peak_rss_bytes: of the whole tree; proportional (PSS) on Linux.
        complete: its result file says that the result is whole.
        evidence: the evidence folder, None where there is none.
        progress: the last that was seen.
        error: the exception that the child wrote down, where there was one.
        cause: what is behind the verdict, as far as the evidence shows it.
        silent_s: since the last progress, when the watching ended.
        cut_by_budget: its deadline ended it.
        interrupted: it was asked to stop before it ended, by whomever.
        cut_by_grace: it was, and had not ended by itself when the grace was over.
        host_slept_s: how long the host slept meanwhile.
        stopped_s: for how long a process of it was stopped, and went on again.
        left: pids of the family that could not be ended.
    """

    verdict: str
    reason: str
    exit_code: int | None
    wall_s: float
    cpu_s: float
    peak_rss_bytes: int | None
    complete: bool
    evidence: str | None
    progress: Progress | None
    error: ChildError | None = None
    cause: Cause | None = None
    silent_s: float = 0.0
    cut_by_budget: bool = False
    interrupted: bool = False
    cut_by_grace: bool = False
    host_slept_s: float = 0.0
    stopped_s: float = 0.0
    left: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _End:
    """Why watching stopped: an exit code, a verdict of the watchdog, the deadline or the user."""

    exit_code: int | None = None
    hang: Verdict | None = None
    cut: bool = False
    interrupted: bool = False
    cut_by_grace: bool = False
    silent_s: float = 0.0


@dataclass
class _Watch:
    """What is known of the running child; `update` reads its progress and samples its tree."""

    child: Child
    time_limits: TimeLimits
    sampler: TreeSampler
    silence: Silence
    slept_s: float
    kills: KillCounters = field(default_factory=KillCounters)
    workers: list[WorkerProgress] = field(default_factory=list)
    progress: Progress | None = None
    sample: TreeSample | None = None
    steps_s: list[float] = field(default_factory=list)
    next_sample_s: float = 0.0
    stopped_s: float = 0.0

    @property
    def stage(self) -> Stage:
        return Stage.IMPORT if self.progress is None else self.progress.stage

    @property
    def limit(self) -> StageLimit:
        return self.time_limits.for_stage(self.stage, self.steps_s)

    @property
    def awaited(self) -> set[int]:
        """Pids of those that the loop waits for: busy workers, else late ranks, else itself."""
        busy = {one.pid for one in self.workers if one.stage is not WorkerStage.IDLE}
        return busy or set(self.late_ranks().values()) or {self.child.pid}

    def late_ranks(self) -> dict[int, int]:
        """Ranks and their pids that others wait for in a collective; all of them if nobody does."""
        ranks = read_ranks(self.child.folder)
        late = [one for one in ranks if one.stage is not WorkerStage.IDLE]
        return {one.worker: one.pid for one in late or ranks}

    def update(self, now_s: float) -> None:
        """Read the progress and, when it is time, look at the tree."""
        self._read(now_s)
        self.child.bound_output()
        slept_s = host_slept_s()
        if slept_s > self.slept_s + 1:
            self._begin_silence(now_s)
            self.slept_s = slept_s
        if now_s < self.next_sample_s:
            return
        silent_s = self.silence.length_s(now_s)
        suspect = silent_s > min(_SUSPECT_S, self.limit.idle_s - _SUSPECT_S)
        self.sample = self.sampler.sample(now_s, weigh=silent_s < _WEIGH_WITHIN_S, waits=suspect)
        self.silence = add_look(self.silence, self.sample)
        self._read_workers(now_s)
        self.kills.watch(process.pid for process in self.sample.processes)
        urgent = silent_s > self.limit.idle_s - _SUSPECT_S
        self.next_sample_s = now_s + (_SUSPECT_SAMPLE_S if urgent else _SAMPLE_S)

    def _read_workers(self, now_s: float) -> None:
        """A worker that starts or makes a batch is progress: it can only make so many ahead."""
        assert self.sample is not None
        alive = {process.pid for process in self.sample.processes}
        workers = [one for one in read_workers(self.child.folder) if one.pid in alive]
        if {(one.pid, one.writes) for one in workers} - {
            (one.pid, one.writes) for one in self.workers
        }:
            self._begin_silence(now_s)
        self.workers = workers

    def _begin_silence(self, now_s: float) -> None:
        self.stopped_s += self.silence.stopped_s
        self.silence = Silence.begin(now_s)

    def _read(self, now_s: float) -> None:
        progress = read_progress(self.child.progress_path)
        before = self.progress
        if progress is None or (before is not None and before.writes == progress.writes):
            return
        step_s = step_seconds(before, progress, self.time_limits.workers)
        if step_s is not None:
            self.steps_s = [*self.steps_s[1 - _STEPS_KEPT :], step_s]
        self.progress = progress
        self._begin_silence(now_s)


def run_child(
    spec: ChildSpec,
    *,
    time_limits: TimeLimits,
    evidence_folder: Path,
    completion: str = "measurement.json",
    deadline_s: float | None = None,
    on_tick: Callable[[Tick], None] | None = None,
    stop: StopRequest | None = None,
    grace_s: float = GRACE_S,
    argv: Sequence[str] | None = None,
) -> Outcome:
    """Start a child and see it to its end; afterwards nothing of its family is left.

    Args:
        spec: what to run; its folder receives `spec.json`, output and results.
        time_limits: how long each stage may be silent.
        evidence_folder: made only for a verdict other than `ok` and `skipped`.
        completion: name of the result file in the spec's folder.
        deadline_s: `time.monotonic()` at which it is cut, unless it may be hanging already.
        on_tick: called some times a second; must be quick.
        stop: the user's wish to end.
        grace_s: how long a real run may take to save after SIGTERM or SIGHUP.
        argv: instead of `python -m ctrkit.child SPEC` (for tests).
    """
    stop = stop or StopRequest()
    slept_s = host_slept_s()
    with subreaper():
        child = Child(spec, completion, argv)
        try:
            watch = _Watch(
                child,
                time_limits,
                TreeSampler(child.pid),
                Silence.begin(child.spawned_at_s),
                slept_s,
            )
            stopping = _Stopping(child, stop, grace_s, is_run=spec.kind == "train")
            end = _watch(watch, deadline_s, on_tick, stopping)
            wall_s = time.monotonic() - child.spawned_at_s
            verdict, end = _verdict(end, watch, completion, is_run=spec.kind == "train")
            kept, cause = verdict.verdict not in ("ok", "skipped"), None
            if kept:
                result = read_result(child.folder, completion)
                scene = _scene(verdict, watch, spec, None if result is None else result.error)
                verdict, cause = _explain(verdict, end, watch, evidence_folder, stop, scene)
        finally:
            ended = child.end()
    result = read_result(child.folder, completion)
    outcome = Outcome(
        verdict=verdict.verdict,
        reason=verdict.reason,
        exit_code=end.exit_code,
        wall_s=wall_s,
        cpu_s=watch.sample.cpu_s if watch.sample else 0.0,
        peak_rss_bytes=watch.sampler.peak_bytes,
        complete=result is not None and result.complete,
        error=None if result is None else result.error,
        evidence=str(evidence_folder) if kept else None,
        progress=watch.progress,
        cause=cause,
        silent_s=end.silent_s,
        cut_by_budget=end.cut,
        interrupted=end.interrupted,
        cut_by_grace=end.cut_by_grace,
        host_slept_s=max(0.0, host_slept_s() - slept_s),
        stopped_s=watch.stopped_s,
        left=ended.left,
    )
    if kept:
        _save_verdict(evidence_folder, outcome, ended)
    return outcome


@dataclass
class _Stopping:
    """Hands a request to stop on to the child, and says when it has to end."""

    child: Child
    stop: StopRequest
    grace_s: float
    is_run: bool  # a trial has nothing to save
    asked_s: float | None = None
    urged: bool = False

    def look(self, progress: Progress | None, stage: Stage, now_s: float) -> _End | None:
        """Tell the child where it is time; how it ends where that is to be now."""
        stop = self.stop
        if stop.end_now or (stop.finish and not self.is_run):
            return _End(interrupted=True)
        if not stop.finish:
            return None
        if self.asked_s is None:
            self.asked_s = now_s
            self._tell(progress)
        if is_out_of_patience(
            stage, self.asked_s, now_s, grace_since_s=stop.grace_since_s, grace_s=self.grace_s
        ):
            return _End(interrupted=True, cut_by_grace=True)
        if not self.urged and now_s - self.asked_s >= _URGE_S:
            self.urged = True
            self._tell(progress)
        return None

    def _tell(self, progress: Progress | None) -> None:
        # rank 0 writes the progress, and has the others stop, too
        self.child.interrupt(None if progress is None else progress.pid)


def _watch(
    watch: _Watch,
    deadline_s: float | None,
    on_tick: Callable[[Tick], None] | None,
    stopping: _Stopping,
) -> _End:
    """Watch until the child ends, hangs, is cut or interrupted."""
    while True:
        exit_code = watch.child.wait(_POLL_S)
        now_s = time.monotonic()
        watch.update(now_s)
        is_asked = stopping.stop.finish
        if exit_code is not None:
            return _End(exit_code=exit_code, interrupted=is_asked)
        if (end := stopping.look(watch.progress, watch.stage, now_s)) is not None:
            return end
        decision = judge(watch.silence, now_s, watch.stage, watch.limit, watch.awaited)
        if isinstance(decision, Verdict):
            silent_s = watch.silence.length_s(now_s)
            return _End(hang=decision, interrupted=is_asked, silent_s=silent_s)
        overdue = deadline_s is not None and now_s >= deadline_s
        if overdue and not is_quiet(watch.silence, now_s, watch.steps_s):
            return _End(cut=True)
        if on_tick is not None:
            on_tick(_tick(watch, now_s))


def _tick(watch: _Watch, now_s: float) -> Tick:
    return Tick(
        wall_s=now_s - watch.child.spawned_at_s,
        silent_s=watch.silence.length_s(now_s),
        stage=watch.stage,
        limit=watch.limit,
        progress=watch.progress,
        sample=watch.sample,
    )


def _verdict(end: _End, watch: _Watch, completion: str, *, is_run: bool) -> tuple[Verdict, _End]:
    """What the end of watching means, together with the result file.

    A real run that was asked to stop may fail all the same while it saves: that is told. One that
    was told directly, and not through this process, was interrupted as well.
    """
    result, code = read_result(watch.child.folder, completion), end.exit_code
    if end.hang is not None:
        return judge_hang(end.hang, result), end
    if code is None:
        return Verdict("skipped", "interrupted" if end.interrupted else "budget"), end
    stderr = tail(watch.child.stderr_path)
    if end.interrupted and (not is_run or was_stopped(code, result, stderr)):
        return Verdict("skipped", "interrupted"), end
    if is_run and code == EXIT_CODE:
        return Verdict("skipped", "interrupted"), replace(end, interrupted=True)
    watch.kills.read()
    return judge_exit(code, result, watch.stage, stderr, watch.kills.kills()), end


def _explain(
    verdict: Verdict, end: _End, watch: _Watch, folder: Path, stop: StopRequest, known: Scene
) -> tuple[Verdict, Cause | None]:
    """Save the evidence; the verdict's reason with what it shows, and the cause."""
    child = watch.child
    save_tails(folder, child.folder)
    parts = [verdict.reason]
    try:
        if end.exit_code is not None:
            found = examine_ended(folder, child.folder, known)
        else:
            read = partial(read_progress, child.progress_path)
            found = examine(folder, child.folder, child.pid, read, lambda: stop.end_now, known)
    except Exception as error:  # the verdict stands all the same, and the family must be ended
        parts.append(f"the evidence is incomplete: {type(error).__name__}: {error}")
        return Verdict(verdict.verdict, "; ".join(parts)), None
    if found.cause is not None and end.exit_code is not None:
        parts = [f"{found.cause.sentence} (in stage '{known.stage}')", found.cause.fix]
    elif found.cause is not None:
        parts += [found.cause.sentence, found.cause.fix]
    elif found.place:
        parts.append(found.place)
    if found.woken:
        parts.append("the evidence signal woke it")
    return Verdict(verdict.verdict, "; ".join(filter(None, parts))), found.cause


def _scene(verdict: Verdict, watch: _Watch, spec: ChildSpec, error: ChildError | None) -> Scene:
    """What is known before anybody is asked."""
    progress, cell = watch.progress, spec.cell
    ranks = {one.pid: one.worker for one in read_ranks(watch.child.folder)}
    late = min(watch.late_ranks(), default=None)
    rank = late if error is None else error.rank
    return Scene(
        root_pid=next((pid for pid, number in ranks.items() if number == rank), watch.child.pid),
        ranks=ranks,
        main_name="the main process" if rank is None else f"rank {rank}",
        verdict=verdict.verdict,
        stage=watch.stage.label if error is None else error.stage,
        step=0 if progress is None else progress.step,
        start_method=cell.start_method,
        workers=cell.workers,
        device=cell.device,
        oom_kills=watch.kills.kills(),
        stderr=tail(watch.child.stderr_path),
        error="" if error is None else error.traceback,
        dead=() if error is None else tuple(error.dead_workers),
    )


def _save_verdict(folder: Path, outcome: Outcome, ended: Ended) -> None:
    write_json(folder / "verdict.json", {
        "verdict": outcome.verdict, "reason": outcome.reason, "exit_code": outcome.exit_code,
        "wall_s": outcome.wall_s, "silent_s": outcome.silent_s, "cpu_s": outcome.cpu_s,
        "host_slept_s": outcome.host_slept_s, "stopped_s": outcome.stopped_s,
        "peak_rss_bytes": outcome.peak_rss_bytes, "ended": list(ended.killed),
        "left": list(ended.left), "unlinked": list(ended.unlinked),
        "progress": None if outcome.progress is None else vars(outcome.progress)
        | {"stage": outcome.progress.stage.label},
    })  # fmt: skip
