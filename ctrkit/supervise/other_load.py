"""Measures how many cores other processes used during each epoch of a trial."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import psutil

from ctrkit.core.progress import Stage
from ctrkit.supervise.host import busy_cpu_s, cpu_times
from ctrkit.supervise.watching import Tick

_LOOK_EVERY_S = 0.5
#: The least time between an epoch's first and last look: CPU time is counted in hundredths.
_LEAST_S = 0.9


@dataclass(frozen=True, kw_only=True)
class LoadLook:
    """The CPU seconds spent so far, read while an epoch's steps run.

    `busy_s` is the CPU time of all processes on the usable cores, `own_s` that of this process and
    the trial. `at_s` is the wall clock of the supervisor.
    """

    epoch: int
    at_s: float
    busy_s: float
    own_s: float


def look_at_load(tick: Tick, after_s: float) -> LoadLook | None:
    """Read the CPU times if the trial is in its steps; None if the last look was a moment ago."""
    progress = tick.progress
    if tick.sample is None or progress is None or progress.stage is not Stage.STEP:
        return None
    if tick.wall_s - after_s < _LOOK_EVERY_S:
        return None
    trial_s = _cpu_s(process.pid for process in tick.sample.processes)
    if trial_s is None:
        return None
    times = cpu_times()
    return LoadLook(
        epoch=progress.epoch,
        at_s=tick.wall_s,
        busy_s=busy_cpu_s(times) - times.get("steal", 0.0),
        own_s=trial_s + time.process_time(),
    )


def other_cores_by_epoch(looks: Sequence[LoadLook]) -> list[float]:
    """Mean number of cores that others used in the first and in the second epoch; [] if unknown.

    A process that starts or ends between two looks can make a difference negative; this counts as
    0.
    """
    found = []
    for epoch in (1, 2):
        own = [look for look in looks if look.epoch == epoch]
        if not own or own[-1].at_s - own[0].at_s < _LEAST_S:
            return []
        others_s = sum(
            max(0.0, (b.busy_s - a.busy_s) - (b.own_s - a.own_s)) for a, b in pairwise(own)
        )
        found.append(others_s / (own[-1].at_s - own[0].at_s))
    return found


def _cpu_s(pids: Iterable[int]) -> float | None:
    total = 0.0
    for pid in pids:
        try:
            times = psutil.Process(pid).cpu_times()
        except psutil.Error:
            return None
        total += times.user + times.system
    return total
