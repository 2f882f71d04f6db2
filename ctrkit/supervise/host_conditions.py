"""Findings on the host during a probe: disturbances from outside the workload, and unknowns."""

from __future__ import annotations

import re
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from ctrkit.core.control_groups import Throttling, cpu_quota_cores, cpu_throttling
from ctrkit.core.environment import usable_cpus
from ctrkit.core.launch_spread import LaunchSpread
from ctrkit.core.records import Finding
from ctrkit.core.subprocesses import output_of
from ctrkit.core.units import (
    format_bytes,
    format_count,
    format_duration,
    format_percent,
    sentences,
)
from ctrkit.supervise.host import HostFigures, read_host
from ctrkit.supervise.host import memory_bytes as all_memory_bytes

Run = Callable[[Sequence[str]], str]
"""Runs a command and returns its output; empty if it fails or takes too long."""

_OTHER_CORES, _STOLEN_SHARE, _STARVED_SHARE = 0.5, 0.03, 0.02
_SWAPPED_BYTES, _SWAPPED_PER_S = 1e8, 5e5
_SCARCE_SHARE = 0.05
_SLOWED_SHARE = 0.95
_CACHE_SHARE = 0.8


@dataclass(frozen=True, kw_only=True)
class Power:
    """How the machine is powered; None for what the system does not tell.

    `frequency_share` is the highest allowed frequency as a share of the maximum. `memory_pressure`
    is macOS's level: 1 normal, 2 warning, 4 critical.
    """

    on_battery: bool | None = None
    low_power: bool | None = None
    frequency_share: float | None = None
    memory_pressure: int | None = None


@dataclass(frozen=True, kw_only=True)
class HostLook:
    """One reading of the host, and CPU seconds of this process and its ended children."""

    at_s: float
    host: HostFigures
    own_cpu_s: float
    quota_cores: float | None = None
    throttling: Throttling | None = None


def look_at_host() -> HostLook:
    """Read the host; `own_cpu_s` does not yet include trials that still run."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    own_cpu_s = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    return HostLook(
        at_s=time.monotonic(),
        host=read_host(),
        own_cpu_s=own_cpu_s,
        quota_cores=cpu_quota_cores(),
        throttling=cpu_throttling(),
    )


def read_power(
    run: Run = output_of, *, root: Path = Path("/sys"), system: str = sys.platform
) -> Power:
    """Read the power state: files under /sys on Linux, `pmset` on macOS."""
    battery = _battery()
    on_battery = None if battery is None else not battery
    if system == "darwin":
        mode = re.search(r"lowpowermode\s+(\d)", run(["pmset", "-g"]))
        pressure = run(["sysctl", "-n", "kern.memorystatus_vm_pressure_level"]).strip()
        return Power(
            on_battery=on_battery,
            low_power=bool(int(mode[1])) if mode else None,
            memory_pressure=int(pressure) if pressure.isdigit() else None,
        )
    profile = _text(root / "firmware/acpi/platform_profile")
    return Power(
        on_battery=on_battery,
        low_power=None if profile is None else profile in ("low-power", "quiet"),
        frequency_share=_frequency_share(root / "devices/system/cpu"),
    )


def _battery() -> bool | None:
    """Whether the machine is plugged in; None without a battery."""
    read = getattr(psutil, "sensors_battery", None)
    try:
        found = read() if read is not None else None
    except (OSError, ValueError, RuntimeError):
        return None
    plugged = None if found is None else found.power_plugged
    return None if plugged is None else bool(plugged)


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _frequency_share(cpus: Path) -> float | None:
    """The lowest allowed frequency share over all cores."""
    shares = []
    for folder in cpus.glob("cpu[0-9]*/cpufreq"):
        now, most = _text(folder / "scaling_max_freq"), _text(folder / "cpuinfo_max_freq")
        if now and most and now.isdigit() and most.isdigit() and int(most) > 0:
            shares.append(int(now) / int(most))
    return min(shares, default=None)


def folder_bytes(folder: Path) -> int:
    """Bytes of the files in a folder; unreadable ones count 0."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:
            continue
    return total


def host_findings(
    begin: HostLook,
    end: HostLook,
    power: Power = Power(),
    *,
    slept: bool = False,
    data_bytes: int | None = None,
    memory_bytes: int | None = None,
    failed: bool = False,
) -> list[Finding]:
    """Findings on what the host did during a probe that makes its projection unreliable.

    Args:
        begin: reading before the first trial.
        end: reading after the last one.
        power: how the machine is powered.
        slept: whether a trial has the flag that the host slept.
        data_bytes: size of the data on disk; None if unknown.
        memory_bytes: memory of the machine or its control group; read if left out.
        failed: whether a trial was ended: then CPU time of its processes may look like others'.
    """
    wall_s = max(1e-9, end.at_s - begin.at_s)
    total_bytes = memory_bytes or all_memory_bytes()
    found = [
        _others(begin, end, failed),
        _stolen(begin.host, end.host, wall_s),
        _swapping(begin.host, end.host, wall_s),
        _scarce(begin.host, end.host, power, wall_s, total_bytes),
        _slowed(begin.host, end.host, power),
        _powered(power),
        _held_back(begin, end),
        _slept(slept),
        _uncached(begin.host, data_bytes),
    ]
    return [finding for finding in found if finding is not None]


def _note(stage: str, text: str, confidence: str = "high") -> Finding:
    return Finding(stage=stage, share=None, worth_x=None, text=text, confidence=confidence)


def other_cores(begin: HostLook, end: HostLook) -> float:
    """Mean number of cores that other processes used between two readings."""
    stolen_s = (end.host.stolen_s or 0.0) - (begin.host.stolen_s or 0.0)
    busy_s = end.host.busy_s - begin.host.busy_s - stolen_s
    own_s = end.own_cpu_s - begin.own_cpu_s
    return max(0.0, (busy_s - own_s) / max(1e-9, end.at_s - begin.at_s))


def _others(begin: HostLook, end: HostLook, failed: bool) -> Finding | None:
    cores = other_cores(begin, end)
    if cores < _OTHER_CORES:
        return None
    if failed:
        return _note(
            "other processes",
            f"other processes, or those of trials that failed, took {cores:.1f} of "
            f"{usable_cpus()} cores while this was measured; ctrkit cannot tell which of the two",
            "low",
        )
    return _note(
        "other processes",
        f"other processes took {cores:.1f} of {usable_cpus()} cores while this was measured; the "
        "projection holds if they keep doing so. A quiet machine is faster: probe again without "
        "them",
        "medium",  # processes that a trial left running count as others
    )


def _held_back(begin: HostLook, end: HostLook) -> Finding | None:
    """A CPU quota smaller than the cores that libraries count, and how often it throttled."""
    if end.quota_cores is None or end.quota_cores >= usable_cpus():
        return None
    text = (
        f"the control group allows {end.quota_cores:g} of {usable_cpus()} cores, while torch and "
        f"other libraries count {usable_cpus()}"
    )
    if begin.throttling is not None and end.throttling is not None:
        held = end.throttling.since(begin.throttling)
        if held.throttled > 0 and held.periods > 0:
            share = format_percent(held.throttled / held.periods)
            text += (
                f"; it stopped the processes in {share} of its periods (cpu.stat: nr_throttled "
                f"+{held.throttled}, {format_duration(held.throttled_s)} in all), so the step is "
                "limited by the quota: ask for more CPU, or keep threads and workers within it"
            )
        else:
            text += "; it did not hold them back while this was measured"
    return _note("CPU quota", text)


def _stolen(begin: HostFigures, end: HostFigures, wall_s: float) -> Finding | None:
    if begin.stolen_s is None or end.stolen_s is None:
        return None
    share = (end.stolen_s - begin.stolen_s) / (wall_s * usable_cpus())
    if share < _STOLEN_SHARE:
        return None
    return _note(
        "stolen CPU",
        f"the hypervisor gave {format_percent(share)} of the processor to other machines; ctrkit "
        f"cannot know how much it takes later in the run",
    )


def _swapping(begin: HostFigures, end: HostFigures, wall_s: float) -> Finding | None:
    swapped = sum(
        (getattr(end, name) or 0) - (getattr(begin, name) or 0)
        for name in ("swapped_in_bytes", "swapped_out_bytes")
    )
    if swapped < max(_SWAPPED_BYTES, _SWAPPED_PER_S * wall_s):
        return None
    return _note(
        "swapping",
        f"the host swapped {format_bytes(swapped)} in {format_duration(wall_s)}: close what takes "
        "the memory, or take fewer --workers or a smaller --batch-size; a longer run may swap more",
    )


def _scarce(
    begin: HostFigures, end: HostFigures, power: Power, wall_s: float, total_bytes: int
) -> Finding | None:
    starved = None
    if begin.starved_s is not None and end.starved_s is not None:
        starved = (end.starved_s - begin.starved_s) / wall_s
    least = min(begin.available_bytes, end.available_bytes)
    if starved is not None and starved >= _STARVED_SHARE:
        lead = f"processes waited for memory for {format_percent(starved)} of the time"
    elif power.memory_pressure is not None and power.memory_pressure >= 2:
        lead = "the system reports memory pressure"
    elif least < _SCARCE_SHARE * total_bytes:
        lead = f"only {format_bytes(least)} of {format_bytes(total_bytes)} were free"
    else:
        return None
    return _note(
        "memory pressure",
        f"{lead}: end programs that use much memory; the run may need more later",
    )


def _slowed(begin: HostFigures, end: HostFigures, power: Power) -> Finding | None:
    """The processor was slowed down for heat, or its frequency is limited."""
    throttles = (end.throttles or 0) - (begin.throttles or 0)
    limit = min((s for s in (begin.speed_limit, end.speed_limit) if s is not None), default=1.0)
    if throttles > 0:
        lead = f"the processor was slowed down because it was hot {throttles} times"
    elif limit < 1:
        lead = f"the processor was held at {format_percent(limit)} of its speed because it was hot"
    elif power.frequency_share is not None and power.frequency_share < _SLOWED_SHARE:
        return _note(
            "low power",
            f"the system allows {format_percent(power.frequency_share)} of the processor's highest "
            "frequency; another power profile is faster",
        )
    else:
        return None
    return _note(
        "throttling",
        f"{lead}; a longer run heats it up more, so it may take longer than projected: give it air "
        "and mains power",
    )


def _powered(power: Power) -> Finding | None:
    if power.low_power:
        return _note(
            "low power",
            "the low-power mode is on: what was measured is slower than this machine can be, and "
            "the projection holds only while it stays on",
        )
    if power.on_battery:
        return _note(
            "battery",
            "the machine runs on its battery: it may be slower than on mains power, or stop",
            "medium",
        )
    return None


def _slept(slept: bool) -> Finding | None:
    if not slept:
        return None
    return _note(
        "sleep",
        "the host slept during a trial: ctrkit train holds it awake where the system lets it; keep "
        "it plugged in and its lid open",
    )


def _uncached(host: HostFigures, data_bytes: int | None) -> Finding | None:
    """Data larger than the page cache is read from the disk in every epoch."""
    if data_bytes is None or data_bytes <= _CACHE_SHARE * host.available_bytes:
        return None
    return _note(
        "page cache",
        f"the data take {format_bytes(data_bytes)} and {format_bytes(host.available_bytes)} of "
        "memory were free: later epochs read from the disk again, as this probe may not have done",
        "medium",
    )


#: Fewer steps say nothing about rare stalls.
_LEAST_FOR_RARE = 6


def _rare_words(steps: int) -> str:
    """How rare a stall may be to have been missed, at 95 %.

    The rule of three: what did not happen in n steps happens at most 3 times in n (Hanley &
    Lippman-Hand, JAMA 249, 1983).
    """
    return (
        f"{format_count(steps)} steps were measured: a stall that comes less often than once in "
        f"{format_count(steps // 3)} steps may have been missed"
    )


def unknowns(
    *,
    wall_s: float,
    launches: int,
    flags: Sequence[str],
    epoch_s: float | None,
    spread: LaunchSpread | None = None,
    steps: int = 0,
) -> Finding:
    """What no probe can know, and how sure the projection is.

    Args:
        wall_s: seconds that the probe took.
        launches: launches of the cell that the projection is made from.
        flags: flags of the projection.
        epoch_s: projected seconds of an epoch.
        spread: what was known before about how launches differ.
        steps: steps that the launches measured; 0 where that is not known.
    """
    confidence = "high" if launches > 1 and not flags else "medium" if launches > 1 else "low"
    seen = (
        f"{launches} launch{'es' if launches != 1 else ''} in a probe of {format_duration(wall_s)}"
    )
    longer = f", while an epoch takes {format_duration(epoch_s)}" if epoch_s else ""
    return _note(
        "projection",
        sentences(
            f"the projection rests on {seen}{longer}",
            "it cannot foresee throttling, growing memory or other work later in the run",
            spread.words() if spread else "",
            _rare_words(steps) if steps >= _LEAST_FOR_RARE else "",
        ),
        confidence,
    )
