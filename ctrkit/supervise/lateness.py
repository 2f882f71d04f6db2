"""Compares a real run with its projection: when it will end, whether it is late, and why."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ctrkit.core.run_time import Place, RunTime, end_of
from ctrkit.core.units import format_bytes, format_duration, format_percent
from ctrkit.supervise.ledger import LedgerRow, totals

# The run's own pace counts after so many steps and seconds, or after so many seconds alone.
_PACE_STEPS, _PACE_S, _PACE_LONG_S = 20, 60.0, 600.0
#: Assumed time of a validation batch that was never timed: a forward pass, a third of a step.
_VALIDATION_SHARE = 1 / 3
_SLACK_S, _SLACK_SHARE = 30.0, 0.02
_MOST_COMPARED = 5
_WAIT_MATTERS, _WAIT_ROSE = 0.3, 0.1
_CORES_MATTER = 0.5
_SWAPPING_PER_S, _SWAPPED_MATTERS = 5e5, 1e8
_GPU_HELD_SHARE = 0.5
_THROTTLED_SHARE = 0.3
_LEAST_RISING, _RISEN = 3, 1.5


@dataclass(frozen=True, kw_only=True)
class SessionProgress:
    """The progress of a session.

    Attributes:
        elapsed_s: wall-clock seconds since its launch.
        epochs: epochs of the whole run.
        began: place at the launch.
        done: place now.
        productive_s: seconds spent on what lies between.
        steps: steps that lie between.
        stepping_s: the part of `productive_s` spent on steps.
        into_end_s: the part spent on the current end of an epoch.
        ending_s: mean seconds of an epoch's end; None until this session has seen one.
    """

    epochs: float
    began: Place
    done: Place
    elapsed_s: float
    productive_s: float
    stepping_s: float
    steps: int
    ending_s: float | None = None
    into_end_s: float = 0.0

    @property
    def is_pace_known(self) -> bool:
        """Whether enough of the run was seen to use its own pace."""
        seen = self.steps >= _PACE_STEPS and self.productive_s >= _PACE_S
        moved = self.done.trained > self.began.trained
        return moved and (seen or self.productive_s >= _PACE_LONG_S)


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Wall-clock seconds from the launch to the end, with an interval.

    `ending_s` of them are for the ends of epochs; `is_end_guessed` if no such end was ever seen or
    projected.
    """

    total_s: float
    low_s: float
    high_s: float
    ending_s: float = 0.0
    is_end_guessed: bool = False


def forecast(
    standing: SessionProgress, known: RunTime | None, validation_batches: int = 0
) -> Forecast | None:
    """The elapsed time, plus the remaining time at the run's own pace, or at a known one.

    What happened once (a sleep, a stop, a restart) counts in the elapsed time, not in the pace.

    Args:
        standing: the session's progress.
        known: the projection, or the pace of earlier sessions of the run; used until the own pace
            is known.
        validation_batches: batches of an epoch's validation. If the time of an epoch's end is
            unknown, each counts as a third of a step; the interval allows up to a whole one.

    Returns:
        The forecast; None if neither pace is known.
    """
    past_s, final = standing.elapsed_s, end_of(max(standing.epochs, standing.done.trained))
    pace, guessed_s = known, 0.0
    if standing.is_pace_known:
        end_s = standing.ending_s
        if end_s is None and known is not None:
            end_s = known.ending_s
        if end_s is None:
            step_s = standing.stepping_s / max(1, standing.steps)
            guessed_s = end_s = validation_batches * step_s * _VALIDATION_SHARE
        steps_s = standing.stepping_s / (standing.done.trained - standing.began.trained)
        pace = RunTime(epoch_s=steps_s + end_s, ending_s=end_s)
    if pace is None:
        return None
    ending_s = pace.ending_s or 0.0
    left_s = pace.between_s(standing.done, final) - min(standing.into_end_s, ending_s)
    left_s = max(0.0, left_s)
    if not standing.is_pace_known and standing.done.trained <= standing.began.trained:
        # nothing is done yet, so a start-up within its projection is not late
        past_s = max(past_s, pace.startup_s)
    low, high = (known.low, known.high) if known is not None else (None, None)
    unsure_s = guessed_s * (final.over - standing.done.over)
    return Forecast(
        total_s=past_s + left_s,
        low_s=past_s + left_s * (1.0 if low is None else low) - unsure_s,
        high_s=past_s + left_s * (1.0 if high is None else high) + 2 * unsure_s,
        ending_s=ending_s,
        is_end_guessed=guessed_s > 0,
    )


def late_by_s(standing: SessionProgress, projected: RunTime, expected: Forecast) -> float:
    """Seconds by which the run will end after its projected interval; 0 if it will not.

    A small excess does not count: half a minute, or a fiftieth.
    """
    due_s = projected.between_s(standing.began, end_of(standing.epochs))
    projected_s = projected.startup_s + due_s
    beyond_s = expected.total_s - projected_s * (1.0 if projected.high is None else projected.high)
    return beyond_s if beyond_s > max(_SLACK_S, _SLACK_SHARE * projected_s) else 0.0


@dataclass(frozen=True)
class LateCause:
    """Why a run is late, from its ledger: a clause, and advice."""

    words: str
    advice: str


def late_cause(
    rows: Sequence[LedgerRow], standing: SessionProgress, projected: RunTime | None, restarts: int
) -> LateCause:
    """The cause that cost most time beyond the projection.

    Args:
        rows: this session's ledger.
        standing: this session's progress.
        projected: the projection; with None, only events that happened once count.
        restarts: number of restarts in this session.
    """
    spent = totals(rows)
    startup_s = spent["startup"] - (projected.startup_s if projected is not None else 0.0)
    due_s = 0.0 if projected is None else _due_s(standing, projected)
    losses = {
        "asleep": spent["asleep"],
        "stopped": spent["stopped"],
        "restart": spent["restart"],
        "startup": startup_s,
        "slow": sum(row.productive_s for row in rows) - due_s,
    }
    most = max(losses, key=lambda name: losses[name])
    took = format_duration(losses[most])
    if most == "asleep":
        return LateCause(f"the host slept {took}", _SLEEP_ADVICE)
    if most == "stopped":
        return LateCause(f"the run was stopped for {took}", _STOP_ADVICE)
    if most == "restart":
        times = {1: "once", 2: "twice"}.get(restarts, f"{restarts} times")
        return LateCause(f"restarted {times}: {took} lost", _RESTART_ADVICE)
    if most == "startup":
        return LateCause(f"the start took {took} longer than projected", _STARTUP_ADVICE)
    return _slow_cause(rows, standing, projected)


def _due_s(standing: SessionProgress, projected: RunTime) -> float:
    """Projected seconds for what the session has done so far."""
    done_s = projected.between_s(standing.began, standing.done)
    return done_s + min(standing.into_end_s, projected.ending_s or 0.0)


_SLEEP_ADVICE = (
    "keep the machine plugged in and its lid open, and leave out --allow-sleep: then ctrkit "
    "holds it awake where the system lets it"
)
_STOP_ADVICE = (
    "somebody sent SIGSTOP, or paused its container or machine; if nobody meant to, find out who "
    "did"
)
_RESTART_ADVICE = "see the incidents: each has its cause and what is known to help"
_STARTUP_ADVICE = "data, imports or the model were slow to load; this happens once"


def _slow_cause(
    rows: Sequence[LedgerRow], standing: SessionProgress, projected: RunTime | None
) -> LateCause:
    """Why steps are slow: swap, heat, the loader, other processes, or the steps themselves."""
    stepping = [row for row in rows if row.steps] or list(rows)
    few = max(1, min(_MOST_COMPARED, len(stepping) // 3))
    recent, early = stepping[-few:], stepping[:few]
    others = _others_words(recent)
    beside = f": {others}" if others else ""
    if swap := _swap_words(rows):
        return LateCause(
            swap,
            "end programs that use much memory, or train with a smaller --batch-size, fewer "
            "--workers or another loader",
        )
    if throttled := _throttle_words(rows, recent):
        return LateCause(
            throttled, "give it air and mains power, and a power mode that lets its fans run"
        )
    if held := _gpu_held_words(recent):
        return LateCause(held, "give the GPU air, or a higher power limit (nvidia-smi -q -d POWER)")
    now, before = _share(recent, "data_wait"), _share(early, "data_wait")
    advice = "end the other work, or give it other cores" if others else (
        "the loader does not keep up: ctrkit probe tells whether it does in another configuration"
    )  # fmt: skip
    if rising := _rising_words(stepping):
        return LateCause(rising + beside, _RISING_ADVICE)
    if now >= before + _WAIT_ROSE and now >= _WAIT_ROSE:
        rose = f"data wait rose from {format_percent(before)} to {format_percent(now)}"
        return LateCause(rose + beside, advice)
    if now >= _WAIT_MATTERS:
        return LateCause(f"data wait takes {format_percent(now)} of the time{beside}",
                     advice)  # fmt: skip
    if others:
        return LateCause(others, advice)
    spent = totals(stepping)
    parts = ("transfer", "compute", "optimizer", "validation", "checkpoint", "logging")
    most = max(parts, key=lambda name: spent[name])
    share = format_percent(_share(stepping, most))
    slower = ""
    if projected is not None and standing.done.trained > standing.began.trained:
        factor = standing.productive_s / _due_s(standing, projected)
        slower = f"an epoch takes {factor:.1f} times what was projected; "
    return LateCause(
        f"{slower}{most} takes {share} of the time, and no measurement of the machine explains it",
        "ctrkit probe measures what this machine can do now",
    )


_RISING_ADVICE = (
    "data sorted by length do that, and the next epoch then starts as fast as this one did; memory "
    "that grows does it, too, and then it does not"
)


def _rising_words(stepping: Sequence[LedgerRow]) -> str:
    """Words that steps got slower and slower in this epoch, or nothing."""
    own = [row for row in stepping if row.steps and row.epoch == stepping[-1].epoch]
    paces_s = [row.productive_s / row.steps for row in own]
    if len(paces_s) < _LEAST_RISING or paces_s[0] <= 0 or paces_s[-1] < _RISEN * paces_s[0]:
        return ""
    if any(later <= earlier for earlier, later in pairwise(paces_s)):
        return ""
    first, last = (format_duration(pace) for pace in (paces_s[0], paces_s[-1]))
    return f"steps get slower all through epoch {own[-1].epoch}: {first} at first, {last} now"


def _share(rows: Sequence[LedgerRow], category: str) -> float:
    whole_s = sum(row.productive_s for row in rows)
    return sum(row.seconds.get(category, 0.0) for row in rows) / whole_s if whole_s > 0 else 0.0


def _others_words(recent: Sequence[LedgerRow]) -> str:
    cores = [row.other_cores for row in recent if row.other_cores is not None]
    mean = sum(cores) / len(cores) if cores else 0.0
    return f"other processes take {mean:.1f} cores" if mean >= _CORES_MATTER else ""


def _swap_words(rows: Sequence[LedgerRow]) -> str:
    """`swapping since 02:14: 3.1 GB`, or nothing.

    Old swapped pages that nothing reads do not count.
    """
    swapping = [row for row in rows if _swapped(row) > _SWAPPING_PER_S * row.wall_s]
    swapped = sum(_swapped(row) for row in swapping)
    if swapped < _SWAPPED_MATTERS:
        return ""
    return f"swapping since {_since(swapping[0])}: {format_bytes(swapped)}"


def _swapped(row: LedgerRow) -> int:
    return (row.swapped_in_bytes or 0) + (row.swapped_out_bytes or 0)


def _throttle_words(rows: Sequence[LedgerRow], recent: Sequence[LedgerRow]) -> str:
    if sum(map(_is_throttled, recent)) < _THROTTLED_SHARE * max(1, len(recent)):
        return ""
    first = next(row for row in rows if _is_throttled(row))
    hottest = max((row.temperature_c for row in recent if row.temperature_c is not None),
                  default=None)  # fmt: skip
    heat = "" if hottest is None else f" (up to {hottest:.0f} °C)"
    return f"the processor has been slowed down because it is hot since {_since(first)}{heat}"


def _gpu_held_words(recent: Sequence[LedgerRow]) -> str:
    """Words that the GPU's clocks are held down most of the time, or nothing."""
    for why in ("heat", "power"):
        shares = [getattr(row, f"gpu_held_by_{why}_share") for row in recent]
        known = [share for share in shares if share is not None]
        if known and sum(known) / len(known) >= _GPU_HELD_SHARE:
            share = format_percent(sum(known) / len(known))
            return f"the GPU's clocks are held down by {why} {share} of the time"
    return ""


def _is_throttled(row: LedgerRow) -> bool:
    return bool(row.throttles) or (row.speed_limit is not None and row.speed_limit < 1)


def _since(row: LedgerRow) -> str:
    """The local time at which the row began."""
    return time.strftime("%H:%M", time.localtime(row.ended_unix_s - row.wall_s))
