"""Figures of the host beside a run: CPU of everybody, memory, swap, temperature, throttling."""

from __future__ import annotations

import re
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import psutil

from ctrkit.core.subprocesses import output_of

_THROTTLES = "cpu[0-9]*/thermal_throttle/*_throttle_count"


@dataclass(frozen=True, kw_only=True)
class HostFigures:
    """One reading; counters are since the host was started, None is what the system does not tell.

    `busy_s` are CPU seconds of all cores that were not idle, also those that a hypervisor took.
    `throttles` counts how often a core was slowed down for its heat; `speed_limit` is the share of
    full speed at which the processor may run (macOS). `stolen_s` of `busy_s` went to other guests
    of a hypervisor; for `starved_s` some process waited for memory.
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
    """The host's figures now; takes some milliseconds."""
    swap_used, swapped_in, swapped_out = _swap()
    times = psutil.cpu_times()._asdict()
    return HostFigures(
        busy_s=busy_cpu_s(times),
        available_bytes=int(psutil.virtual_memory().available),
        swap_used_bytes=swap_used,
        swapped_in_bytes=swapped_in,
        swapped_out_bytes=swapped_out,
        temperature_c=_temperature_c(),
        throttles=throttle_count(Path("/sys/devices/system/cpu")),
        speed_limit=_speed_limit(),
        stolen_s=times.get("steal"),
        starved_s=starved_s(Path("/proc/pressure/memory")),
    )


def busy_cpu_s(times: dict[str, float]) -> float:
    """CPU seconds that were not idle; a guest's are counted in its user's already."""
    idle = ("idle", "iowait", "guest", "guest_nice")
    return sum(seconds for name, seconds in times.items() if name not in idle)


def _swap() -> tuple[int | None, int | None, int | None]:
    """Bytes of swap in use, and read and written since the host was started."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # psutil warns where a kernel has no counters
            swap = psutil.swap_memory()
    except (OSError, psutil.Error):
        return None, None, None
    if sys.platform == "darwin":  # psutil's counters there are of every page, files' too
        return int(swap.used), *vm_stat_swaps(output_of(["vm_stat"]))
    return int(swap.used), int(swap.sin), int(swap.sout)


def vm_stat_swaps(text: str) -> tuple[int | None, int | None]:
    """Bytes swapped in and out, of what macOS's `vm_stat` prints."""
    page = re.search(r"page size of (\d+) bytes", text)
    counts = [re.search(rf"^{name}:\s+(\d+)\.", text, re.MULTILINE) for name in _SWAP_LINES]
    found = [int(m[1]) * int(page[1]) if m and page else None for m in counts]
    return found[0], found[1]


_SWAP_LINES = ("Swapins", "Swapouts")


def _temperature_c() -> float | None:
    """The hottest sensor's."""
    read = getattr(psutil, "sensors_temperatures", None)
    if read is None:
        return None
    try:
        sensors = read()
    except (OSError, ValueError):
        return None
    return max((float(one.current) for group in sensors.values() for one in group), default=None)


def throttle_count(cpus: Path) -> int | None:
    """How often cores and packages were throttled (Linux on x86); None where it is not told."""
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
    """The share of full speed that macOS's `pmset -g therm` tells."""
    match = re.search(r"CPU_Speed_Limit\s*=\s*(\d+)", text)
    return int(match[1]) / 100 if match else None
