"""Shows the ledger of a real run: where its time went, and when it will end."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ctrkit.core.units import format_bytes, format_duration
from ctrkit.report.blocks import Block, Column, Facts, Paragraph, Section, Table
from ctrkit.report.words import percent, plural, rate_words
from ctrkit.supervise.ledger import LedgerRow, totals
from ctrkit.supervise.time_account import CATEGORIES

HEADING = "Where the time went"

WORDS = {
    "startup": "start-up", "data_wait": "data wait", "transfer": "transfer",
    "compute": "forward and backward", "optimizer": "optimizer", "validation": "validation",
    "checkpoint": "checkpoints", "logging": "logging", "restart": "restart after an incident",
    "stopped": "stopped", "asleep": "host asleep", "shutdown": "shutdown",
    "unexplained": "unexplained",
}  # fmt: skip
"""Names of the categories in reports."""

LOST = ("restart", "stopped", "asleep")
"""Categories of wasted time."""

_DEVICE_NOTE = (
    "What the main thread spent: this device computes asynchronously, so a stage may pay for what "
    "an earlier one asked for."
)
_LEAST_SHARE = 5e-4
_MOST_NAMED, _WORTH_NAMING = 3, 0.01


def ledger_section(rows: Sequence[LedgerRow], device: str = "cpu") -> Section:
    """A table of categories with seconds and shares, and figures of the machine."""
    spent, wall_s = totals(rows), sum(row.wall_s for row in rows)
    shown = [name for name in CATEGORIES if abs(spent[name]) >= _LEAST_SHARE * wall_s]
    columns = (Column("what", right=False), Column("time"), Column("share"))
    table = Table(
        columns,
        tuple((WORDS[name], format_duration(spent[name]), percent(spent[name] / wall_s))
              for name in shown),
        tuple("bad" if name in LOST else "plain" for name in shown),
    ) if wall_s > 0 else Table(columns, ())  # fmt: skip
    blocks: list[Block] = [table, Facts(tuple(_facts(rows, wall_s)))]
    if device != "cpu":
        blocks.append(Paragraph(_DEVICE_NOTE, "dim"))
    return Section(HEADING, tuple(blocks))


def _facts(rows: Sequence[LedgerRow], wall_s: float) -> list[tuple[str, str]]:
    sessions = len({row.session for row in rows})
    over = f" in {plural(sessions, 'session')}" if sessions > 1 else ""
    found = [("wall clock", format_duration(wall_s) + over)]
    trained = sum(row.rows for row in rows)
    if trained and wall_s > 0:
        found.append(("throughput", f"{rate_words(trained / wall_s)} rows/s over all of it"))
    for label, name in (("CPU", "cpu_cores"), ("other CPU", "other_cores")):
        cores = _weighted(rows, name)
        if cores is not None:
            who = "by this run" if name == "cpu_cores" else "by other processes"
            found.append((label, f"{cores:.1f} cores {who}, on average"))
    memory = [row.pss_bytes or row.rss_bytes or 0 for row in rows]
    if any(memory):
        found.append(("memory", f"up to {format_bytes(max(memory))}"))
    swapped = sum((row.swapped_in_bytes or 0) + (row.swapped_out_bytes or 0) for row in rows)
    if swapped:
        found.append(("swap", f"{format_bytes(swapped)} swapped in and out on this machine"))
    device = [row.device_bytes for row in rows if row.device_bytes]
    if device:
        found.append(("device memory", f"up to {format_bytes(max(device))}"))
    found += _gpu_facts(rows)
    hot = [row.temperature_c for row in rows if row.temperature_c is not None]
    if hot:
        found.append(("temperature", f"up to {max(hot):.0f} °C"))
    throttles = sum(row.throttles or 0 for row in rows)
    limits = [row.speed_limit for row in rows if row.speed_limit is not None]
    if throttles:
        found.append(("throttled", plural(throttles, "time")))
    if limits and min(limits) < 1:
        found.append(("throttled", f"down to {percent(min(limits))} of full speed"))
    return found


def _gpu_facts(rows: Sequence[LedgerRow]) -> list[tuple[str, str]]:
    """Facts on the run's GPUs; empty if unknown."""
    busy, power = _weighted(rows, "gpu_busy_share"), _weighted(rows, "gpu_power_w")
    clock = _weighted(rows, "gpu_clock_share")
    words = [] if busy is None else [f"{percent(busy)} busy"]
    words += [] if power is None else [f"{power:.0f} W"]
    words += [] if clock is None else [f"{percent(clock)} of the highest clock"]
    found = [("GPU", ", ".join(words) + ", on average")] if words else []
    for why in ("power", "heat"):
        held = _weighted(rows, f"gpu_held_by_{why}_share")
        if held is not None and held >= _WORTH_NAMING:
            found.append(("GPU clocks", f"held down by {why} {percent(held)} of the time"))
    memory = [row.gpu_memory_bytes for row in rows if row.gpu_memory_bytes]
    if memory:
        found.append(("GPU memory", f"up to {format_bytes(max(memory))} in use, by everybody"))
    others = [row.gpu_others_bytes for row in rows if row.gpu_others_bytes is not None]
    if others:
        most = f", up to {format_bytes(max(others))}" if any(others) else ""  # 0: not told
        found.append(("GPU shared", f"with other processes{most}"))
    return found


def _weighted(rows: Sequence[LedgerRow], name: str) -> float | None:
    """The mean over time of a figure in the rows; None if no row has it."""
    known = [(value, row.wall_s) for row in rows if (value := getattr(row, name)) is not None]
    whole_s = sum(wall_s for _, wall_s in known)
    return sum(value * wall_s for value, wall_s in known) / whole_s if whole_s > 0 else None


def spending_words(before: Mapping[str, float], now: Mapping[str, float]) -> str:
    """What took most of the time between two sums of seconds by category; empty if nothing did."""
    spent = {name: max(0.0, now.get(name, 0.0) - before.get(name, 0.0)) for name in CATEGORIES}
    whole_s = sum(spent.values())
    most = sorted(spent, key=lambda name: -spent[name])[:_MOST_NAMED]
    named = [name for name in most if spent[name] >= _WORTH_NAMING * max(whole_s, 1e-9)]
    return ", ".join(f"{WORDS[name]} {percent(spent[name] / whole_s)}" for name in named)


def moment_words(unix_s: float, beside_unix_s: float | None = None) -> str:
    """`Tue 24 Nov 13:50` in local time; only `13:50` on the day of `beside_unix_s`."""
    then = time.localtime(unix_s)
    if beside_unix_s is not None:
        other = time.localtime(beside_unix_s)
        if (then.tm_year, then.tm_yday) == (other.tm_year, other.tm_yday):
            return time.strftime("%H:%M", then)
    return time.strftime("%a %d %b %H:%M", then)


@dataclass(frozen=True, kw_only=True)
class ExpectedEnd:
    """When a run is expected to end: seconds from a moment, with their interval.

    Attributes:
        ending_s: seconds for the end of the current epoch, after its steps.
        unseen: what was never seen, and is therefore guessed or missing.
    """

    at_unix_s: float
    left_s: float
    low_s: float
    high_s: float
    ending_s: float = 0.0
    unseen: str = ""

    def words(self, least_s: float = 0.0) -> str:
        """In words; a run never ends before its epoch, which needs `least_s` more."""
        left = (max(least_s, seconds) for seconds in (self.left_s, self.low_s, self.high_s))
        words = end_words(self.at_unix_s, *left)
        return f"{words} ({self.unseen})" if self.unseen else words


def end_words(now_unix_s: float, left_s: float, low_s: float, high_s: float) -> str:
    """`run left 11 h 20 min, until Tue 24 Nov 13:50 (13:20 .. 15:05)`: seconds to go, from now."""
    end = now_unix_s + left_s
    words = f"run left {format_duration(max(0.0, left_s))}, until {moment_words(end, now_unix_s)}"
    low, high = (moment_words(now_unix_s + s, end) for s in (low_s, high_s))
    return words + (f" ({low} .. {high})" if low != high else "")
