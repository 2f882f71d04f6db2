"""Runs one child to its end: launches, watches, explains, cleans up, gives the verdict.

Read `run_child` first. `launch` starts the child; `watching` looks at it until it ends or
`watchdog` decides that it hangs; `endings` gives the verdict; `explain` finds the cause while the
family still lives; `cleanup` ends the whole family.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ctrkit.core.child_records import ChildError
from ctrkit.core.config import ChildSpec
from ctrkit.core.files import write_json
from ctrkit.core.progress import Progress, Stage, read_progress, read_ranks
from ctrkit.core.units import format_bytes
from ctrkit.supervise.cleanup import Ended, subreaper
from ctrkit.supervise.endings import (
    End,
    Result,
    batches_done,
    judge_end,
    judge_script_end,
    read_result,
)
from ctrkit.supervise.explain.causes import Cause
from ctrkit.supervise.explain.evidence import examine, examine_ended, save_tails, tail
from ctrkit.supervise.explain.flight_recorder import collect_dumps
from ctrkit.supervise.explain.hangs import AT_THE_END
from ctrkit.supervise.explain.scene import Scene
from ctrkit.supervise.forkserver import ForkServer
from ctrkit.supervise.gpu import GpuReader, GpuUse
from ctrkit.supervise.launch import Child
from ctrkit.supervise.nvml import open_gpus
from ctrkit.supervise.relay import Relay
from ctrkit.supervise.sampler import host_slept_s
from ctrkit.supervise.stop import GRACE_S, StopRequest
from ctrkit.supervise.time_limits import StageTimes, TimeLimits
from ctrkit.supervise.watchdog import Verdict
from ctrkit.supervise.watching import PassingOn, Stopping, Tick, Watch, watch_until_end


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a child ended.

    Args:
        verdict: one of `core.records.VERDICTS`; `skipped` if the deadline or the user ended it.
        reason: a sentence; empty for `ok`.
        exit_code: exit code of a child that ended by itself, negative for a signal; else None.
        wall_s: seconds from the launch to the end or the verdict.
        cpu_s: CPU seconds of the whole tree.
        peak_rss_bytes: peak memory of the whole tree; proportional (PSS) on Linux.
        complete: whether its result file is complete.
        evidence: the evidence folder; None if there is none.
        progress: its last progress.
        error: the exception that the child wrote, if there was one.
        cause: the cause of the verdict, as far as the evidence shows it.
        silent_s: seconds since the last progress, when watching ended.
        cut_by_budget: its deadline ended it.
        interrupted: it was asked to stop before it ended.
        cut_by_grace: it was asked to stop, and had not ended when the grace period was over.
        host_slept_s: seconds that the host slept in this time.
        stopped_s: seconds for which a process of it was stopped and then continued.
        left: pids of the family that could not be ended.
        longest_s: per stage, the longest silence that ended by itself.
        gpu_use: what its GPUs did while it made steps.
        forked: whether a server forked it.
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
    longest_s: Mapping[Stage, float] = field(default_factory=dict)
    gpu_use: GpuUse = field(default_factory=GpuUse)
    forked: bool = False

    @property
    def failed_stage(self) -> str:
        """Label of the stage that failed; by then the progress says shutdown."""
        if self.error is not None:
            return self.error.stage
        return self.progress.stage.label if self.progress is not None else "import"


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
    times: StageTimes | None = None,
    argv: Sequence[str] | None = None,
    relay: Relay | None = None,
    gpus: Callable[[], GpuReader | None] = open_gpus,
    server: ForkServer | None = None,
) -> Outcome:
    """Start a child and run it to its end; afterwards nothing of its family is left.

    Args:
        spec: what to run; its folder gets `spec.json`, output and results.
        time_limits: how long each stage may be silent.
        evidence_folder: made only for a verdict other than `ok` and `skipped`.
        completion: name of the result file in the spec's folder.
        deadline_s: `time.monotonic()` at which to end it, unless it may be hanging already.
        on_tick: called a few times a second; must be quick.
        stop: the user's stop request.
        grace_s: seconds that a real run may take to save after SIGTERM or SIGHUP.
        times: what is known about the stages from before.
        argv: replaces `python -m ctrkit.child SPEC` (for tests).
        relay: connects the real run of a script to our own streams; then its exit code is its
            result.
        gpus: opens a GPU reader; called only for a child that may compute on a GPU.
        server: forks the child if it can.
    """
    stop, slept_s = stop or StopRequest(), host_slept_s()
    with subreaper():
        child = Child(spec, completion, argv, relay, server)
        try:
            may_use_gpus = spec.cell.device == "cuda" or spec.workload.script is not None
            watch = Watch.begin(
                child, time_limits, slept_s, times or StageTimes(), is_script=relay is not None,
                gpu_reader=gpus() if may_use_gpus else None,
            )  # fmt: skip
            stopping: Stopping | PassingOn
            if relay is not None:
                relay.to_group = child.to_group
                stopping = PassingOn(child, stop, grace_s)
            else:
                stopping = Stopping(child, stop, grace_s, is_run=spec.kind == "train")
            end = watch_until_end(watch, deadline_s, on_tick, stopping)
            wall_s = time.monotonic() - child.spawned_at_s
            finding = _find(spec, end, watch, completion, evidence_folder, stop)
        finally:
            ended = child.end()
            if relay is not None:
                relay.close()
    result = read_result(child.folder, completion)
    outcome = _outcome(finding, watch, result, wall_s, host_slept_s() - slept_s, ended)
    if finding.evidence is not None:
        with watch.bystander.doing("to keep the verdict beside its evidence"):
            _save_verdict(finding.evidence, outcome, ended)
    return outcome


@dataclass(frozen=True, kw_only=True)
class _Finding:
    """What was found while the family still lived: the verdict and its reasons."""

    end: End
    verdict: Verdict
    evidence: Path | None = None
    cause: Cause | None = None


def _find(
    spec: ChildSpec, end: End, watch: Watch, completion: str, folder: Path, stop: StopRequest
) -> _Finding:
    """The verdict; for a bad one, also the cause, with evidence in `folder`."""
    child = watch.child
    if end.exit_code is not None:
        watch.kills.read()
    result, stderr = read_result(child.folder, completion), tail(child.stderr_path)
    kills, is_run = watch.kills.kills(), spec.kind == "train"
    if watch.is_script:
        done = batches_done(watch.progress)
        verdict = judge_script_end(end, watch.stage, stderr, kills, done)
    else:
        done = batches_done(watch.progress) if spec.workload.script is not None else ""
        verdict, end = judge_end(end, result, watch.stage, stderr, kills, is_run=is_run, done=done)
    if verdict.verdict in ("ok", "skipped"):
        return _Finding(end=end, verdict=verdict)
    error = None if result is None else result.error
    verdict, cause = _explain(verdict, end, watch, folder, stop, spec, error)
    if watch.is_script and cause is not None and cause.name in AT_THE_END:
        verdict = Verdict("shutdown-hang", verdict.reason)
    return _Finding(end=end, verdict=verdict, evidence=folder, cause=cause)


def _outcome(
    finding: _Finding,
    watch: Watch,
    result: Result | None,
    wall_s: float,
    slept_s: float,
    ended: Ended,
) -> Outcome:
    end = finding.end
    return Outcome(
        verdict=finding.verdict.verdict,
        reason=finding.verdict.reason,
        exit_code=end.exit_code,
        wall_s=wall_s,
        cpu_s=watch.sample.cpu_s if watch.sample else 0.0,
        peak_rss_bytes=watch.sampler.peak_bytes,
        complete=result is not None and result.complete,
        error=None if result is None else result.error,
        evidence=None if finding.evidence is None else str(finding.evidence),
        progress=watch.progress,
        cause=finding.cause,
        silent_s=end.silent_s,
        cut_by_budget=end.cut,
        interrupted=end.interrupted,
        cut_by_grace=end.cut_by_grace,
        host_slept_s=max(0.0, slept_s),
        stopped_s=watch.stopped_s,
        left=ended.left,
        longest_s=dict(watch.longest_s),
        gpu_use=watch.gpu_use,
        forked=watch.child.server_pid is not None,
    )


def _explain(
    verdict: Verdict,
    end: End,
    watch: Watch,
    folder: Path,
    stop: StopRequest,
    spec: ChildSpec,
    error: ChildError | None,
) -> tuple[Verdict, Cause | None]:
    """Save the evidence; returns the verdict, its reason extended, and the cause."""
    child, parts = watch.child, [verdict.reason]
    try:
        known = _scene(verdict, watch, spec, error)
        save_tails(folder, child.folder)
        lives = end.exit_code is None
        recorded = collect_dumps(child.folder, folder, ask=lives, enough=lambda: stop.end_now)
        if end.exit_code is not None:
            found = examine_ended(folder, child.folder, known)
        else:
            read = partial(read_progress, watch.progress_path)
            found = examine(folder, child.folder, child.pid, read, lambda: stop.end_now, known)
    # the verdict stands without it, and the family must still be ended
    except Exception as problem:
        parts.append(f"the evidence is incomplete: {type(problem).__name__}: {problem}")
        return Verdict(verdict.verdict, "; ".join(parts)), None
    if found.cause is not None and end.exit_code is not None:
        parts = [f"{found.cause.sentence} (in stage '{known.stage}')", found.cause.fix]
    elif found.cause is not None:
        parts += [found.cause.sentence, found.cause.fix]
    elif found.place:
        parts.append(found.place)
    elif end.exit_code is None and not any(one.threads for one in found.scene.processes):
        parts.append("no stacks could be had: install py-spy, which reads them from outside")
    parts += [recorded, _device_memory_words(verdict, watch.gpu_use)]
    if found.woken:
        parts.append("the evidence signal woke it")
    return Verdict(verdict.verdict, "; ".join(filter(None, parts))), found.cause


def _device_memory_words(verdict: Verdict, use: GpuUse) -> str:
    """How full the GPU was if memory ran out; a driver's error has no figures."""
    if verdict.verdict != "out-of-memory" or use.memory_bytes is None:
        return ""
    whole = use.memory_total_bytes
    of = f" of {format_bytes(whole)}" if whole else ""
    words = f"up to {format_bytes(use.memory_bytes)}{of} of the GPU were seen in use"
    others = use.others_bytes
    return f"{words}, {format_bytes(others)} of it by other processes" if others else words


def _scene(verdict: Verdict, watch: Watch, spec: ChildSpec, error: ChildError | None) -> Scene:
    """The scene as known before any process is examined."""
    progress, cell = watch.progress, spec.cell
    ranks = {one.pid: one.worker for one in read_ranks(watch.child.folder)}
    root_pid, rank = _guilty(watch, ranks, error)
    return Scene(
        root_pid=root_pid,
        is_script=watch.is_script,
        ranks=ranks if len(ranks) > 1 or not watch.is_script else {},
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


def _guilty(
    watch: Watch, ranks: Mapping[int, int], error: ChildError | None
) -> tuple[int, int | None]:
    """The process to examine first, and its rank; of several ranks, the one others wait for."""
    late = watch.late_ranks()
    if not watch.is_script:
        rank = min(late, default=None) if error is None else error.rank
        pid = next((pid for pid, number in ranks.items() if number == rank), watch.child.pid)
        return pid, rank
    if 0 < len(late) < len(ranks):  # its stack may tell more, if there is one
        return late[min(late)], min(late)
    return (watch.child.pid if watch.progress is None else watch.progress.pid), None


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
