"""Where each second of a run went: looks at clocks and counters in, seconds by category out."""

from __future__ import annotations

from dataclasses import dataclass

from ctrkit.progress import Spending, Spent

OWN = tuple(spending.name.lower() for spending in Spending)
"""What the loop itself counts, in the order of `Spent.seconds`."""

CATEGORIES = (*OWN[:-1], "restart", "stopped", "asleep", OWN[-1], "unexplained")
"""Where a second can have gone, in the order in which reports list them."""

PRODUCTIVE = ("data_wait", "transfer", "compute", "optimizer", "validation", "checkpoint",
              "logging")  # fmt: skip
"""What comes with every step and epoch: the rest comes once, or should not."""

# Where the loop waits for its loader, so that a stopped worker stops it, too.
_WAITS = (Spending.DATA_WAIT, Spending.VALIDATION)
# A supervisor that looks some times a second and did not for so long was frozen itself.
_FROZEN_S, _FROZEN_CORES = 5.0, 0.02

Position = tuple[int, int]
"""Epoch, and steps of it that are done."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """All that is known at one moment.

    Args:
        awake_s: monotonic seconds; they stand still while the host sleeps.
        slept_s: seconds for which the host has slept since it was started.
        spent: what the running child has counted; None while there is none, or it has not begun.
        position: where the loop is.
        loop_stopped: whether the loop's process is stopped.
        other_stopped: whether another process of the tree is.
        cpu_s: CPU seconds of the tree since its launch.
    """

    awake_s: float
    slept_s: float
    spent: Spent | None = None
    position: Position = (0, 0)
    loop_stopped: bool = False
    other_stopped: bool = False
    cpu_s: float = 0.0


class Account:
    """Adds up the time between looks; `seconds` always sum to the wall clock's time.

    Wall-clock time is awake time and the time for which the host slept. What the loop counts while
    it is stopped, or while it makes steps again that were lost with an earlier child, goes to
    `stopped` and `restart`. What nobody counted is `unexplained`.
    """

    def __init__(self, look: Look) -> None:
        self.seconds = dict.fromkeys(CATEGORIES, 0.0)
        self._last = look
        self._rest = "startup"  # where time goes in which no child counts
        self._lost_to: Position | None = None

    def look(self, look: Look) -> None:
        """Account for the time since the last look."""
        self._add(look, look.awake_s)

    def ended(self, look: Look, *, lost: bool) -> None:
        """The child is over: what it had not counted by the last look belongs to what comes next.

        `lost`: it was an incident; until a step is done that is new, time is that of a restart.
        """
        self._rest = "restart" if lost else "shutdown"
        self._add(look, self._last.awake_s)
        if lost:
            # the loss lasts until the furthest step that was ever done is done again
            self._lost_to = max(look.position, self._lost_to or (0, 0))
        self._last = Look(awake_s=look.awake_s, slept_s=look.slept_s)

    def _add(self, look: Look, until_s: float) -> None:
        before, self._last = self._last, look
        gap_s = look.awake_s - before.awake_s
        self.seconds["asleep"] += max(0.0, look.slept_s - before.slept_s)
        own = _own_seconds(before, look, until_s)
        rest_s = gap_s - sum(own.values())
        if _is_stopped(before, look):
            counted = look.spent.doing.name.lower() if look.spent else ""
            # what a stopped loop is in the midst of gets nothing of this time
            taken_s = min(own[counted], gap_s) if counted else rest_s
            if counted:
                own[counted] -= taken_s
            else:
                rest_s -= taken_s
            self.seconds["stopped"] += taken_s
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


def _own_seconds(before: Look, look: Look, until_s: float) -> dict[str, float]:
    """What the loop has counted since, the open part up to `until_s`."""
    if look.spent is None:
        return dict.fromkeys(OWN, 0.0)
    now = look.spent.until(until_s)
    then = (
        before.spent.until(before.awake_s)
        if before.spent is not None and before.spent.pid == look.spent.pid
        else (0.0,) * len(now)
    )
    return {name: b - a for name, a, b in zip(OWN, then, now, strict=True)}


def _is_stopped(before: Look, look: Look) -> bool:
    """Whether the loop stood still for the whole time because something was stopped or frozen."""
    if before.loop_stopped and look.loop_stopped:
        return True
    if before.spent is None or look.spent is None or before.spent.writes != look.spent.writes:
        return False
    if before.other_stopped and look.other_stopped and look.spent.doing in _WAITS:
        return True
    gap_s = look.awake_s - before.awake_s
    return gap_s > _FROZEN_S and look.cpu_s - before.cpu_s < _FROZEN_CORES * gap_s
