"""The control groups of this process (Linux): its folders, CPU quota and memory.

A quota limits the CPU time per period, at any level above the process. `os.cpu_count()` and the CPU
affinity do not show it (`man 7 cgroups`; `cpu.max` in cgroup v2, `cpu.cfs_quota_us` in v1).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


@dataclass(frozen=True)
class Throttling:
    """Effects of a CPU quota so far: all periods, throttled periods, and throttled seconds."""

    periods: int
    throttled: int
    throttled_s: float

    def since(self, before: Throttling) -> Throttling:
        """The difference to an earlier reading."""
        return Throttling(
            self.periods - before.periods,
            self.throttled - before.throttled,
            self.throttled_s - before.throttled_s,
        )


def group_folders(controller: str, root: Path = ROOT, own: Path = OWN) -> list[tuple[Path, bool]]:
    """Folders of this process's group and all groups above it, each with whether it is cgroup v2.

    Args:
        controller: the v1 controller, each with a hierarchy of its own: `cpu`, `memory`.
        root: where the groups are mounted.
        own: `/proc/PID/cgroup`.
    """
    try:
        lines = own.read_text("utf-8", "replace").splitlines()
    except OSError:
        return []
    found: list[tuple[Path, bool]] = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        names = controllers.split(",")
        if controller in names:
            top = next((p for p in (root / controllers, root / controller) if p.is_dir()), None)
        elif not controllers:
            top = root
        else:
            continue
        if top is None:
            continue
        folder = top / group.lstrip("/")
        # in a container the file names the group's path outside the container
        if not folder.is_dir():
            folder = top
        levels = [level for level in (folder, *folder.parents) if level.is_relative_to(top)]
        found += [(level, not controllers) for level in levels]
    return found


def cpu_quota_cores(root: Path = ROOT, own: Path = OWN) -> float | None:
    """Cores' worth of CPU time that the control groups allow: the least of all levels.

    None without a quota, or without control groups (macOS).
    """
    quotas = [_quota(folder, v2) for folder, v2 in group_folders("cpu", root, own)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _quota(folder: Path, v2: bool) -> float | None:
    try:
        if v2:
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
        most, each = int(quota), int(period)
    except (OSError, ValueError):  # no such file, or "max"
        return None
    return most / each if most > 0 and each > 0 else None


def cpu_throttling(root: Path = ROOT, own: Path = OWN) -> Throttling | None:
    """Throttling by the level with the smallest quota; None without a quota."""
    counted = [
        count
        for folder, v2 in group_folders("cpu", root, own)
        if _quota(folder, v2) is not None and (count := _throttling(folder)) is not None
    ]
    return max(counted, key=lambda count: count.throttled_s, default=None)


def _throttling(folder: Path) -> Throttling | None:
    try:
        pairs = dict(
            line.split()
            for line in (folder / "cpu.stat").read_text("utf-8", "replace").splitlines()
        )
        # version 2 counts microseconds, version 1 nanoseconds
        micro_s, nano_s = pairs.get("throttled_usec"), pairs.get("throttled_time", "0")
        throttled_s = int(nano_s) / 1e9 if micro_s is None else int(micro_s) / 1e6
        return Throttling(
            int(pairs.get("nr_periods", 0)), int(pairs.get("nr_throttled", 0)), throttled_s
        )
    except (OSError, ValueError):
        return None


#: files of limit and use, and the key of droppable cache, in v1 and v2
_MEMORY_FILES = {
    False: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    True: ("memory.max", "memory.current", "inactive_file"),
}
_NO_LIMIT_BYTES = 2**60  # v1 writes a huge number instead of "max"


def memory_left_bytes(root: Path = ROOT, own: Path = OWN) -> int | None:
    """Bytes that the control groups still allow this process: the least of all levels.

    Page cache that a group could drop at once counts as free. None without a limit, or without
    control groups (macOS).
    """
    found = []
    for folder, v2 in group_folders("memory", root, own):
        limit, usage, cached = _MEMORY_FILES[v2]
        most, used = _number(folder / limit), _number(folder / usage)
        if most is not None and used is not None and most < _NO_LIMIT_BYTES:
            found.append(max(0, most - used + _stat(folder / "memory.stat").get(cached, 0)))
    return min(found, default=None)


def memory_limit_bytes(root: Path = ROOT, own: Path = OWN) -> int | None:
    """Memory limit in bytes, the least of all levels; None without a limit."""
    limits = [
        _number(folder / _MEMORY_FILES[v2][0]) for folder, v2 in group_folders("memory", root, own)
    ]
    return min((one for one in limits if one is not None and one < _NO_LIMIT_BYTES), default=None)


def own_swap(root: Path = ROOT, own: Path = OWN) -> tuple[int, int, int] | None:
    """Bytes of swap that this group uses, has read and has written; None if unknown.

    cgroup v2 counts swapped pages only since Linux 6.11.
    """
    for folder, v2 in group_folders("memory", root, own)[:1]:
        counted, used = _stat(folder / "memory.stat"), _number(folder / "memory.swap.current")
        if v2 and used is not None and "pswpin" in counted:
            page = os.sysconf("SC_PAGE_SIZE")
            return used, counted["pswpin"] * page, counted["pswpout"] * page
    return None


def pressure_file(resource: str, root: Path = ROOT, own: Path = OWN) -> Path:
    """The file with pressure stalls of `memory` or `io`: this group's, else the machine's."""
    for folder, v2 in group_folders(resource, root, own)[:1]:
        path = folder / f"{resource}.pressure"
        if v2 and path.is_file():  # at the root: a container's own, or the machine's
            return path
    return Path("/proc/pressure") / resource


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # no such file, or "max"
        return None


def _stat(path: Path) -> dict[str, int]:
    try:
        pairs = [line.split() for line in path.read_text().splitlines()]
        return {key: int(value) for key, value in pairs}
    except (OSError, ValueError):
        return {}
