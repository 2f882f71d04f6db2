"""Accounts for each second of a run: samples of clocks and counters in, seconds by category out."""

from __future__ import annotations

from dataclasses import dataclass

from ctrkit.core.environment import usable_cpus
from ctrkit.core.spending import Spending, Spent

OWN = tuple(spending.name.lower() for spending in Spending)
"""The activities that the loop itself counts, in the order of `Spent.seconds`."""

CATEGORIES = (*OWN[:-1], "restart", "stopped", "asleep", OWN[-1], "unexplained")
"""Categories of time, in the order in which reports list them."""

PRODUCTIVE = ("data_wait", "transfer", "compute", "optimizer", "validation", "checkpoint",
              "logging")  # fmt: skip
"""Categories that every step and epoch has; the others occur once, or should not occur."""

# Activities in which the loop waits for its loader, so that a stopped worker stops it, too.
_WAITS = (Spending.DATA_WAIT, Spending.VALIDATION)
# A supervisor samples a few times a second; if it did not for this long, it was frozen itself. The
# tree's CPU time may be a few seconds old at a sample, the loop's is not.
_FROZEN_S, _FROZEN_CORES, _OLD_S = 5.0, 0.02, 2.5
_EDGES_S = 1.0  # processes that were paused together continue within this time

EpochStep = tuple[int, int]
"""Epoch, and steps done of it."""


@dataclass(frozen=True, kw_only=True)
class SessionLook:
    """Everything known at one moment.

    Args:
        awake_s: monotonic seconds; they stand still while the host sleeps.
        slept_s: seconds that the host has slept since it started.
        spent: what the running child has counted; None without a child, or before it begins.
        position: the loop's position.
        loop_stopped: whether the loop's process is stopped.
        other_stopped: whether another process of the tree is stopped.
        loop_cpu_s: CPU seconds of the loop's process since its launch.
        cpu_s: CPU seconds of the whole tree, up to a few seconds old.
    """

    awake_s: float
    slept_s: float
    spent: Spent | None = None
    position: EpochStep = (0, 0)
    loop_stopped: bool = False
    other_stopped: bool = False
    loop_cpu_s: float = 0.0
    cpu_s: float = 0.0


class TimeAccount:
    """Adds up the time between samples; `seconds` always sum to the wall-clock time.

    Wall-clock time is awake time plus the host's sleep. Time while the loop is stopped goes to
    `stopped`; time while it repeats steps that an earlier child lost goes to `restart`. Time that
    nothing counted is `unexplained`.
    """

    def __init__(self, look: SessionLook) -> None:
        self.seconds = dict.fromkeys(CATEGORIES, 0.0)
        self._last = look
        self._rest = "startup"  # the category for time without a counting child
        self._lost_to: EpochStep | None = None

    def look(self, look: SessionLook) -> None:
        """Account for the time since the last sample."""
        self._add(look, look.awake_s)

    def ended(self, look: SessionLook, *, lost: bool) -> None:
        """The child has ended: time that it had not counted belongs to what comes next.

        `lost`: an incident ended it; until a new step is done, time counts as `restart`.
        """
        self._rest = "restart" if lost else "shutdown"
        self._add(look, self._last.awake_s)
        if lost:
            # until the furthest step ever done is done again
            self._lost_to = max(look.position, self._lost_to or (0, 0))
        self._last = SessionLook(awake_s=look.awake_s, slept_s=look.slept_s)

    def _add(self, look: SessionLook, until_s: float) -> None:
        before, self._last = self._last, look
        gap_s = look.awake_s - before.awake_s
        self.seconds["asleep"] += max(0.0, look.slept_s - before.slept_s)
        own = _own_seconds(before, look, until_s)
        rest_s = gap_s - sum(own.values())
        stopped_s, midst = _stopped(before, look)
        if stopped_s:
            # the current activity of a stopped loop gets none of this time
            counted = midst.name.lower() if midst is not None else "rest"
            own["rest"] = rest_s
            stopped_s = min(stopped_s, max(0.0, own[counted]))
            own[counted] -= stopped_s
            rest_s = own.pop("rest")
            self.seconds["stopped"] += stopped_s
        is_known = _is_same(before.spent, look.spent) and until_s == look.awake_s
        rest = "unexplained" if is_known else self._rest
        own[rest] = own.get(rest, 0.0) + rest_s
        if self._lost_to is not None:
            own = {"restart": sum(own.values())}
            if look.position > self._lost_to:
                self._lost_to = None
        for category, seconds in own.items():
            self.seconds[category] += seconds


def _is_same(before: Spent | None, now: Spent | None) -> bool:
    return before is not None and now is not None and before.pid == now.pid


def _own_seconds(before: SessionLook, look: SessionLook, until_s: float) -> dict[str, float]:
    """What the loop has counted since the last sample, the current activity up to `until_s`."""
    if look.spent is None:
        return dict.fromkeys(OWN, 0.0)
    now = look.spent.until(until_s)
    then = (
        before.spent.until(before.awake_s)
        if before.spent is not None and before.spent.pid == look.spent.pid
        else (0.0,) * len(now)
    )
    return {name: b - a for name, a, b in zip(OWN, then, now, strict=True)}


def _stopped(before: SessionLook, look: SessionLook) -> tuple[float, Spending | None]:
    """Seconds for which the loop was stopped, and what it was doing.

    If a stop began or ended between two samples, half of that time is counted.
    """
    gap_s = look.awake_s - before.awake_s
    if before.spent is not None and look.spent is not None and before.spent.pid == look.spent.pid:
        if _is_idle(before, look) and (stuck := _stuck(before.spent, look, gap_s)):
            return stuck
        still = before.spent.writes == look.spent.writes and look.spent.doing in _WAITS
        if before.other_stopped and look.other_stopped and still:
            return gap_s, look.spent.doing
    midst = before.spent if before.loop_stopped else look.spent
    seconds = gap_s * (before.loop_stopped + look.loop_stopped) / 2
    return seconds, None if midst is None else midst.doing


def _is_idle(before: SessionLook, look: SessionLook) -> bool:
    """Whether there was no sample for a while, and the family used no CPU."""
    gap_s = look.awake_s - before.awake_s
    little_s = _FROZEN_CORES * gap_s
    return (
        gap_s > _FROZEN_S
        and look.loop_cpu_s - before.loop_cpu_s < little_s
        and look.cpu_s - before.cpu_s < little_s + _OLD_S * usable_cpus()
    )


def _stuck(before: Spent, look: SessionLook, gap_s: float) -> tuple[float, Spending] | None:
    """The stretch in which the loop did only one thing, if it is nearly the whole gap."""
    assert look.spent is not None
    if before.writes == look.spent.writes:
        return gap_s, look.spent.doing
    if look.spent.long is None:
        return None
    doing, from_s, to_s = look.spent.long
    stuck_s = min(to_s, look.awake_s) - max(from_s, look.awake_s - gap_s)
    return (stuck_s, doing) if stuck_s > gap_s - _EDGES_S else None
