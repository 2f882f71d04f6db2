"""The one look at what this machine has for workers and batches; what it does not tell is None."""

from __future__ import annotations

import multiprocessing
import os
import platform
import resource
import tempfile
from pathlib import Path

import psutil

from ctrkit.core.checkup import MachineLimits
from ctrkit.core.control_groups import cpu_quota_cores, group_folders
from ctrkit.core.environment import physical_cores, usable_cpus
from ctrkit.core.lifeline import ADDED_BY_MULTIPROCESSING, fits_sockets, short_temporary_folder


def read_limits() -> MachineLimits:
    """The limits that hold for this process, and so for its children, now."""
    available_bytes = psutil.virtual_memory().available
    allowed_bytes = cgroup_allowance_bytes()
    temporary = tempfile.gettempdir()
    start_methods = tuple(multiprocessing.get_all_start_methods())  # the default comes first
    return MachineLimits(
        system=platform.system(),
        python=platform.python_version(),
        cores=physical_cores(),
        visible_cores=usable_cpus(),
        cpu_quota_cores=cpu_quota_cores(),
        memory_bytes=min(available_bytes, allowed_bytes or available_bytes),
        memory_is_capped=allowed_bytes is not None and allowed_bytes < available_bytes,
        shm_bytes=_free_bytes(Path("/dev/shm")),
        open_files=_open_files(),
        start_methods=start_methods,
        start_method=start_methods[0],
        long_temporary_folder=""
        if fits_sockets(temporary, ADDED_BY_MULTIPROCESSING)
        else temporary,
        short_temporary_folder=str(short_temporary_folder() or ""),
    )


def cgroup_allowance_bytes(
    root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> int | None:
    """What the control groups of this process still allow it, the least of all levels.

    The page cache that a group could drop at once counts as allowed. None where no group has a
    limit, or where there are none (macOS).
    """
    allowances = []
    for folder, limit, usage, cached in _groups(root, own):
        most, used = _number(folder / limit), _number(folder / usage)
        if most is not None and used is not None and most < 2**60:  # version 1 writes no "max"
            allowances.append(max(0, most - used + _stat(folder / "memory.stat", cached)))
    return min(allowances, default=None)


def _groups(root: Path, own: Path) -> list[tuple[Path, str, str, str]]:
    """Every group above this process: its folder, and the names of limit, usage and cache there."""
    first = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    second = ("memory.max", "memory.current", "inactive_file")
    return [
        (folder, *(second if v2 else first)) for folder, v2 in group_folders("memory", root, own)
    ]


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # no such file, or "max"
        return None


def _stat(path: Path, key: str) -> int:
    try:
        pairs = dict(line.split() for line in path.read_text().splitlines())
        return int(pairs.get(key, 0))
    except (OSError, ValueError):
        return 0


def _free_bytes(folder: Path) -> int | None:
    try:
        space = os.statvfs(folder)
    except OSError:
        return None
    return space.f_bavail * space.f_frsize


def _open_files() -> int | None:
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft
