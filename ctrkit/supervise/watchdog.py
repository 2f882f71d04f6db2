"""Decides whether a silent child is slow, stopped, spinning or dead: pure functions of samples."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import psutil

from ctrkit.core.progress import Progress, Stage
from ctrkit.core.units import format_duration
from ctrkit.supervise.sampler import STOPPED_STATES, TreeSample
from ctrkit.supervise.time_limits import StageLimit

LOOK_AGAIN_S = 1.5
BURNING_CORES = 0.75
# Factor on the limit for a process that may continue by itself (a disk, a timer, another host), but
# not beyond this many seconds unless the limit itself is longer.
GRACE, GRACE_MOST_S = 3, 900.0
QUIET_S = 5.0
_MAX_GAP_S = 4.0  # a longer gap between two samples means that the supervisor itself did not run


@dataclass(frozen=True, kw_only=True)
class Silence:
    """The time since the last progress, as samples of the tree show it (monotonic seconds).

    Attributes:
        excused_s: time in which the host or the supervisor did not run.
        stopped_s: time in which a process of the tree was stopped.
        crowded_s: time in which the tree wanted CPU while other jobs had the cores.
        burned_until_s: end of the last interval in which the tree used CPU.
        looks: the latest samples; the first and last are at least LOOK_AGAIN_S apart once there are
            enough.
    """

    since_s: float
    burned_until_s: float
    excused_s: float = 0.0
    stopped_s: float = 0.0
    crowded_s: float = 0.0
    looks: tuple[TreeSample, ...] = ()

    @classmethod
    def begin(cls, now_s: float) -> Silence:
        """A silence that begins now: there was just progress."""
        return cls(since_s=now_s, burned_until_s=now_s)

    def length_s(self, now_s: float) -> float:
        """Its length without excused time."""
        return now_s - self.since_s - self.excused_s


def add_look(silence: Silence, sample: TreeSample) -> Silence:
    """The silence with one more sample of the tree."""
    looks = (*silence.looks, sample)
    while len(looks) > 2 and sample.taken_s - looks[1].taken_s >= LOOK_AGAIN_S:
        looks = looks[1:]
    silence = dataclasses.replace(silence, looks=looks)
    if len(looks) < 2:
        return silence
    before = looks[-2]
    gap_s = sample.taken_s - before.taken_s
    if gap_s > _MAX_GAP_S:
        excused_s = silence.excused_s + gap_s
        return dataclasses.replace(silence, excused_s=excused_s, looks=(sample,))
    if _in_states(before, sample, STOPPED_STATES):
        silence = dataclasses.replace(silence, stopped_s=silence.stopped_s + gap_s)
    if _cores(before, sample) >= BURNING_CORES:
        queued = 1 - (sample.cpu_s - before.cpu_s) / (sample.wanted_s - before.wanted_s)
        crowded_s = silence.crowded_s + gap_s * min(1.0, max(0.0, queued))
        silence = dataclasses.replace(silence, burned_until_s=sample.taken_s, crowded_s=crowded_s)
    return silence


@dataclass(frozen=True)
class Keep:
    """Within its limit, or excused: continue."""


@dataclass(frozen=True)
class Suspect:
    """Over its limit: sample again soon."""


@dataclass(frozen=True)
class Verdict:
    """One of `ctrkit.core.records.VERDICTS` and a sentence that says why."""

    verdict: str
    reason: str


Decision = Keep | Suspect | Verdict


def judge(
    silence: Silence,
    now_s: float,
    stage: Stage,
    limit: StageLimit,
    awaited: Collection[int] = (),
) -> Decision:
    """Judge a silence by its length and its samples.

    - A stopped process or a spinning tree is `stalled`, and so is a process in uninterruptible I/O
      after GRACE limits.
    - A tree that uses CPU may take `burning_s`, up to GRACE times that if other jobs kept it from
      the cores.
    - A tree that used CPU and has just become idle gets a quarter of its limit more.
    - If an awaited process sleeps on a timer, or is connected to another host, it gets GRACE
      limits.
    - Anything else is a `deadlock`.

    Args:
        silence: the silence since the last progress.
        now_s: the time on the clock of the samples.
        stage: the child's stage.
        limit: the limit of this stage.
        awaited: pids of processes that the loop waits for: busy workers, else the main process.
    """
    silent_s = silence.length_s(now_s)
    if silent_s < limit.idle_s:
        return Keep()
    if silent_s < limit.idle_s + LOOK_AGAIN_S or not _looked_twice(silence):
        return Suspect()
    first, last = silence.looks[0], silence.looks[-1]
    what = (
        f"no progress in stage '{stage.label}' for {format_duration(silent_s)}"
        f" (limit {format_duration(limit.idle_s)}: {limit.reason})"
    )
    if stopped := _in_states(first, last, STOPPED_STATES):
        return Verdict("stalled", f"{what}; process {stopped[0]} is stopped")
    if silent_s - silence.stopped_s < limit.idle_s:  # it was stopped and has continued
        return Keep()
    cores = _cores(first, last)
    if cores >= BURNING_CORES:
        if silent_s < min(limit.burning_s + silence.crowded_s, GRACE * limit.burning_s):
            return Keep()
        return Verdict("stalled", f"{what}; its processes burn {cores:.1f} cores all the while")
    if waiting := _in_states(first, last, (psutil.STATUS_DISK_SLEEP,)):
        if silent_s < _grace_s(limit):
            return Keep()
        return Verdict("stalled", f"{what}; process {waiting[0]} is in uninterruptible I/O")
    if now_s - silence.burned_until_s < max(LOOK_AGAIN_S, limit.idle_s / 4):
        return Keep()
    if sleeping := _both_times(first, last, awaited, "on_timer"):
        if silent_s < _grace_s(limit):
            return Keep()
        return Verdict("deadlock", f"{what}; process {sleeping[0]} only sleeps, again or still")
    if connected := _both_times(first, last, awaited, "on_network"):
        if silent_s < _grace_s(limit):
            return Keep()
        what += f"; process {connected[0]} is connected with another host"
    return Verdict("deadlock", f"{what}; its processes burn {cores:.2f} cores")


def _grace_s(limit: StageLimit) -> float:
    return max(limit.idle_s, min(GRACE * limit.idle_s, GRACE_MOST_S))


def is_quiet(silence: Silence, now_s: float, steps_s: Sequence[float]) -> bool:
    """Whether the child may be hanging already: silent for longer than a step, and idle.

    Such a child is judged to the end of its stage's limit, even past a probe's deadline.
    """
    usual_s = 2 * statistics.median(steps_s) if steps_s else 0.0
    if silence.length_s(now_s) < max(QUIET_S, usual_s) or len(silence.looks) < 2:
        return False
    return _cores(silence.looks[0], silence.looks[-1]) < BURNING_CORES


def step_seconds(before: Progress | None, after: Progress, workers: int) -> float | None:
    """Mean seconds of the steps between two readings of one epoch; None if they say nothing.

    The first `workers` batches of an epoch come from a queue that was filled beforehand.
    """
    if before is None or before.epoch != after.epoch or after.step <= before.step:
        return None
    if before.stage is not Stage.STEP or after.stage is not Stage.STEP:
        return None
    if before.step < max(1, workers):
        return None
    return (after.written_s - before.written_s) / (after.step - before.step)


def _looked_twice(silence: Silence) -> bool:
    looks = silence.looks
    return len(looks) >= 2 and looks[-1].taken_s - looks[0].taken_s >= LOOK_AGAIN_S


def _cores(first: TreeSample, last: TreeSample) -> float:
    """Cores that the tree used, or would have used on a host that was not crowded."""
    return max(0.0, last.wanted_s - first.wanted_s) / max(last.taken_s - first.taken_s, 1e-9)


def _in_states(first: TreeSample, last: TreeSample, states: Sequence[str]) -> list[int]:
    """Processes that were in one of these states in both samples."""
    before = {process.pid for process in first.processes if process.status in states}
    return [p.pid for p in last.processes if p.pid in before and p.status in states]


def _both_times(
    first: TreeSample, last: TreeSample, awaited: Collection[int], what: str
) -> list[int]:
    """Awaited processes with this property in both samples."""
    before = {process.pid for process in first.processes if getattr(process, what)}
    return [
        process.pid
        for process in last.processes
        if getattr(process, what) and process.pid in before and process.pid in awaited
    ]
