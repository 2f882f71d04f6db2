"""Samples the host during a run: CPU of all processes, memory, swap, temperature, throttling."""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from ctrkit.core.control_groups import (
    memory_left_bytes,
    memory_limit_bytes,
    own_swap,
    pressure_file,
)
from ctrkit.core.subprocesses import output_of

_KINDS = (
    "user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guest_nice",
)  # fmt: skip
_THROTTLES = "cpu[0-9]*/thermal_throttle/*_throttle_count"


@dataclass(frozen=True, kw_only=True)
class HostFigures:
    """One reading. Counters start with the host; None if the system does not tell.

    Memory and swap are the control group's, if it has less than the host.

    Attributes:
        busy_s: non-idle CPU seconds of the cores that this process may use, including time taken by
            a hypervisor.
        stolen_s: the part of `busy_s` that went to other guests of the hypervisor.
        throttles: how often a core was slowed down for heat.
        speed_limit: share of full speed that the processor may use (macOS).
        starved_s: seconds in which some process waited for memory.
    """

    busy_s: float
    available_bytes: int
    swap_used_bytes: int | None
    swapped_in_bytes: int | None
    swapped_out_bytes: int | None
    temperature_c: float | None
    throttles: int | None
    speed_limit: float | None
    stolen_s: float | None = None
    starved_s: float | None = None


def read_host() -> HostFigures:
    """Read the host's figures; takes a few milliseconds."""
    swap_used, swapped_in, swapped_out = _swap()
    times = cpu_times()
    return HostFigures(
        busy_s=busy_cpu_s(times),
        available_bytes=available_bytes(),
        swap_used_bytes=swap_used,
        swapped_in_bytes=swapped_in,
        swapped_out_bytes=swapped_out,
        temperature_c=_temperature_c(),
        throttles=throttle_count(Path("/sys/devices/system/cpu")),
        speed_limit=_speed_limit(),
        stolen_s=times.get("steal"),
        starved_s=starved_s(pressure_file("memory")),
    )


def available_bytes() -> int:
    """Bytes of memory that this process can still get, by host and control groups."""
    host_bytes, left_bytes = int(psutil.virtual_memory().available), memory_left_bytes()
    return host_bytes if left_bytes is None else min(host_bytes, left_bytes)


def memory_bytes() -> int:
    """Bytes of all memory that this process could use."""
    host_bytes, most_bytes = int(psutil.virtual_memory().total), memory_limit_bytes()
    return host_bytes if most_bytes is None else min(host_bytes, most_bytes)


def cpu_times(
    stat: Path = Path("/proc/stat"), usable: Collection[int] | None = None
) -> Mapping[str, float]:
    """CPU seconds by kind since the host started, of the cores that this process may use.

    If a container is pinned to 4 of 64 cores (cpuset), the other 60 do not count.

    Args:
        stat: `/proc/stat`, with a line per online core.
        usable: numbers of the cores; those of the CPU affinity if left out.
    """
    if usable is None and hasattr(os, "sched_getaffinity"):
        usable = os.sched_getaffinity(0)
    cores = _cores_of(stat)
    if not usable or set(usable) >= set(cores):
        return dict(psutil.cpu_times()._asdict())
    totals = dict.fromkeys(_KINDS, 0.0)
    for number in set(usable) & set(cores):
        for kind, ticks in zip(_KINDS, cores[number], strict=False):
            totals[kind] += ticks / os.sysconf("SC_CLK_TCK")
    return totals


def _cores_of(stat: Path) -> dict[int, list[int]]:
    """Ticks by kind of each core; empty where the system has no such file."""
    try:
        lines = stat.read_text().splitlines()
    except OSError:
        return {}
    fields = [line.split() for line in lines if re.match(r"cpu\d", line)]
    return {int(name[3:]): list(map(int, ticks)) for name, *ticks in fields}


def busy_cpu_s(times: Mapping[str, float]) -> float:
    """Non-idle CPU seconds; the time of guests is already part of `user`."""
    idle = ("idle", "iowait", "guest", "guest_nice")
    return sum(seconds for name, seconds in times.items() if name not in idle)


def _swap() -> tuple[int | None, int | None, int | None]:
    """Bytes of swap in use, read and written, by the control group, else by the host."""
    if (group := own_swap()) is not None:
        return group
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # psutil warns where a kernel has no counters
            swap = psutil.swap_memory()
    except (OSError, psutil.Error):
        return None, None, None
    if sys.platform == "darwin":  # psutil's counters on macOS include pages of files
        return int(swap.used), *vm_stat_swaps(output_of(["vm_stat"]))
    return int(swap.used), int(swap.sin), int(swap.sout)


def vm_stat_swaps(text: str) -> tuple[int | None, int | None]:
    """Bytes swapped in and out, from the output of macOS's `vm_stat`."""
    page = re.search(r"page size of (\d+) bytes", text)
    counts = [re.search(rf"^{name}:\s+(\d+)\.", text, re.MULTILINE) for name in _SWAP_LINES]
    found = [int(m[1]) * int(page[1]) if m and page else None for m in counts]
    return found[0], found[1]


_SWAP_LINES = ("Swapins", "Swapouts")


def _temperature_c() -> float | None:
    """Temperature of the hottest sensor."""
    read = getattr(psutil, "sensors_temperatures", None)
    if read is None:
        return None
    try:
        sensors = read()
    except (OSError, ValueError):
        return None
    return max((float(one.current) for group in sensors.values() for one in group), default=None)


def throttle_count(cpus: Path) -> int | None:
    """How often cores and packages were throttled (Linux on x86); None if unknown."""
    counts = []
    for path in cpus.glob(_THROTTLES):
        try:
            counts.append(int(path.read_text()))
        except (OSError, ValueError):
            continue
    return sum(counts) if counts else None


def starved_s(path: Path) -> float | None:
    """Seconds for which some process waited for memory (Linux with pressure stall information)."""
    try:
        match = re.search(r"^some .*total=(\d+)", path.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(match[1]) / 1e6 if match else None


def _speed_limit() -> float | None:
    return speed_limit_of(output_of(["pmset", "-g", "therm"])) if sys.platform == "darwin" else None


def speed_limit_of(text: str) -> float | None:
    """The share of full speed in the output of macOS's `pmset -g therm`."""
    match = re.search(r"CPU_Speed_Limit\s*=\s*(\d+)", text)
    return int(match[1]) / 100 if match else None
