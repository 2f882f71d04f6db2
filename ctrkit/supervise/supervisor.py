"""Runs one child to its end, whatever it does: watches, explains, cleans up, gives the verdict."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ctrkit.config import ChildSpec
from ctrkit.files import write_json
from ctrkit.progress import Progress, Stage, read_progress
from ctrkit.supervise.budgets import Budgets, StageBudget
from ctrkit.supervise.cleanup import Ended, subreaper
from ctrkit.supervise.endings import judge_exit, judge_hang, read_result
from ctrkit.supervise.evidence import examine, save_tails, tail
from ctrkit.supervise.launch import Child
from ctrkit.supervise.sampler import TreeSample, TreeSampler, host_slept_s
from ctrkit.supervise.stop import StopRequest
from ctrkit.supervise.watchdog import (
    Silence,
    Verdict,
    add_look,
    is_quiet,
    judge,
    step_seconds,
)

_POLL_S = 0.1
_SAMPLE_S = 1.0
_SUSPECT_SAMPLE_S = 0.5
_WEIGH_WITHIN_S = 5.0  # of silence; later the memory figure is left alone
_STEPS_KEPT = 101


@dataclass(frozen=True, kw_only=True)
class Tick:
    """What a display may want to know, about ten times a second."""

    wall_s: float
    silent_s: float
    stage: Stage
    budget: StageBudget
    progress: Progress | None
    sample: TreeSample | None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a child ended.

    Args:
        verdict: one of `ctrkit.records.VERDICTS`; `skipped` where the deadline cut it or the user
            interrupted it.
        reason: a sentence, empty for `ok`.
        exit_code: of a child that ended by itself, negative for a signal; else None.
        wall_s: from launch to end or verdict.
        cpu_s: CPU seconds of the whole tree.
        peak_rss_bytes: of the whole tree; proportional (PSS) on Linux.
        complete: its result file says that the result is whole.
        evidence: the evidence folder, None where there is none.
        progress: the last that was seen.
        host_slept_s: how long the host slept meanwhile.
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
    cut_by_budget: bool = False
    interrupted: bool = False
    host_slept_s: float = 0.0
    left: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _End:
    """Why watching stopped: an exit code, a verdict of the watchdog, the deadline or the user."""

    exit_code: int | None = None
    hang: Verdict | None = None
    cut: bool = False
    interrupted: bool = False


@dataclass
class _Watch:
    """What is known of the running child; `update` reads its progress and samples its tree."""

    child: Child
    budgets: Budgets
    sampler: TreeSampler
    silence: Silence
    slept_s: float
    progress: Progress | None = None
    sample: TreeSample | None = None
    steps_s: list[float] = field(default_factory=list)
    next_sample_s: float = 0.0

    @property
    def stage(self) -> Stage:
        return Stage.IMPORT if self.progress is None else self.progress.stage

    @property
    def budget(self) -> StageBudget:
        return self.budgets.for_stage(self.stage, self.steps_s)

    def update(self, now_s: float) -> None:
        """Read the progress and, when it is time, look at the tree."""
        self._read(now_s)
        slept_s = host_slept_s()
        if slept_s > self.slept_s + 1:
            self.silence, self.slept_s = Silence.begin(now_s), slept_s
        if now_s < self.next_sample_s:
            return
        silent_s = self.silence.length_s(now_s)
        self.sample = self.sampler.sample(now_s, weigh=silent_s < _WEIGH_WITHIN_S)
        self.silence = add_look(self.silence, self.sample)
        urgent = silent_s > self.budget.idle_s - 2 * _SAMPLE_S
        self.next_sample_s = now_s + (_SUSPECT_SAMPLE_S if urgent else _SAMPLE_S)
        self.child.bound_output()

    def _read(self, now_s: float) -> None:
        progress = read_progress(self.child.progress_path)
        before = self.progress
        if progress is None or (before is not None and before.writes == progress.writes):
            return
        step_s = step_seconds(before, progress, self.budgets.workers)
        if step_s is not None:
            self.steps_s = [*self.steps_s[1 - _STEPS_KEPT :], step_s]
        self.progress, self.silence = progress, Silence.begin(now_s)


def run_child(
    spec: ChildSpec,
    *,
    budgets: Budgets,
    evidence_folder: Path,
    completion: str = "measurement.json",
    deadline_s: float | None = None,
    on_tick: Callable[[Tick], None] | None = None,
    stop: StopRequest | None = None,
    argv: Sequence[str] | None = None,
) -> Outcome:
    """Start a child and see it to its end; afterwards nothing of its family is left.

    Args:
        spec: what to run; its folder receives `spec.json`, output and results.
        budgets: how long each stage may be silent.
        evidence_folder: made only for a verdict other than `ok` and `skipped`.
        completion: name of the result file in the spec's folder.
        deadline_s: `time.monotonic()` at which it is cut, unless it may be hanging already.
        on_tick: called about ten times a second; must be quick.
        stop: the user's wish to end.
        argv: instead of `python -m ctrkit.child SPEC` (for tests).
    """
    stop = stop or StopRequest()
    slept_s = host_slept_s()
    with subreaper():
        child = Child(spec, completion, argv)
        try:
            watch = _Watch(
                child, budgets, TreeSampler(child.pid), Silence.begin(child.spawned_at_s), slept_s
            )
            end = _watch(watch, deadline_s, on_tick, stop)
            wall_s = time.monotonic() - child.spawned_at_s
            verdict = _verdict(end, watch, completion)
            kept = verdict.verdict not in ("ok", "skipped")
            if kept:
                verdict = _explain(verdict, end, watch, evidence_folder, stop)
        finally:
            ended = child.end()
    result = read_result(child.folder / completion)
    outcome = Outcome(
        verdict=verdict.verdict,
        reason=verdict.reason,
        exit_code=end.exit_code,
        wall_s=wall_s,
        cpu_s=watch.sample.cpu_s if watch.sample else 0.0,
        peak_rss_bytes=watch.sampler.peak_bytes,
        complete=result is not None and result.complete,
        evidence=str(evidence_folder) if kept else None,
        progress=watch.progress,
        cut_by_budget=end.cut,
        interrupted=end.interrupted,
        host_slept_s=max(0.0, host_slept_s() - slept_s),
        left=ended.left,
    )
    if kept:
        _save_verdict(evidence_folder, outcome, ended)
    return outcome


def _watch(
    watch: _Watch,
    deadline_s: float | None,
    on_tick: Callable[[Tick], None] | None,
    stop: StopRequest,
) -> _End:
    """Watch until the child ends, hangs, is cut or interrupted."""
    told = False
    while True:
        exit_code = watch.child.wait(_POLL_S)
        now_s = time.monotonic()
        watch.update(now_s)
        if exit_code is not None:
            return _End(exit_code=exit_code, interrupted=stop.finish)
        if stop.end_now:
            return _End(interrupted=True)
        if stop.finish and not told:
            watch.child.send_signal(signal.SIGINT)
            told = True
        decision = judge(watch.silence, now_s, watch.stage, watch.budget)
        if isinstance(decision, Verdict):
            return _End(hang=decision, interrupted=stop.finish)
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
        budget=watch.budget,
        progress=watch.progress,
        sample=watch.sample,
    )


def _verdict(end: _End, watch: _Watch, completion: str) -> Verdict:
    """What the end of watching means, together with the result file."""
    result = read_result(watch.child.folder / completion)
    if end.hang is not None:
        return judge_hang(end.hang, result)
    if end.interrupted:
        return Verdict("skipped", "interrupted")
    if end.exit_code is None:
        return Verdict("skipped", "budget")
    return judge_exit(end.exit_code, result, watch.stage, tail(watch.child.stderr_path))


def _explain(
    verdict: Verdict, end: _End, watch: _Watch, folder: Path, stop: StopRequest
) -> Verdict:
    """Save the evidence; the verdict's reason with what it shows."""
    child = watch.child
    save_tails(folder, child.folder)
    if end.exit_code is not None:
        return verdict
    read = partial(read_progress, child.progress_path)
    found = examine(folder, child.folder, child.pid, read, lambda: stop.end_now)
    reason = verdict.reason
    if found.place:
        reason += f"; {found.place}"
    if found.woken:
        reason += "; the evidence signal woke it"
    return Verdict(verdict.verdict, reason)


def _save_verdict(folder: Path, outcome: Outcome, ended: Ended) -> None:
    write_json(folder / "verdict.json", {
        "verdict": outcome.verdict, "reason": outcome.reason, "exit_code": outcome.exit_code,
        "wall_s": outcome.wall_s, "cpu_s": outcome.cpu_s, "host_slept_s": outcome.host_slept_s,
        "peak_rss_bytes": outcome.peak_rss_bytes, "ended": list(ended.killed),
        "left": list(ended.left), "unlinked": list(ended.unlinked),
        "progress": None if outcome.progress is None else vars(outcome.progress)
        | {"stage": outcome.progress.stage.label},
    })  # fmt: skip
