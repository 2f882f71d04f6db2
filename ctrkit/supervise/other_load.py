"""How much of the machine other processes took in each epoch of a trial."""

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
#: Looks of less than this in an epoch tell nothing: the system counts CPU time in hundredths.
_LEAST_S = 0.9


@dataclass(frozen=True, kw_only=True)
class LoadLook:
    """CPU seconds so far, at a moment between two steps of an epoch.

    `busy_s` is what the usable cores were busy for, `own_s` the part of this process and the trial.
    """

    epoch: int
    at_s: float
    busy_s: float
    own_s: float


def look_at_load(tick: Tick, after_s: float) -> LoadLook | None:
    """A look between the steps of a trial; None until it is time for another."""
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
    """Cores that other processes took in the first and in the second epoch; [] where not known.

    Processes that start or end between two looks change what is counted: the lower side of 0 is
    left out.
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
