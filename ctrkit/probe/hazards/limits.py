"""Reads this machine's limits for workers and batches; None for what it does not tell."""

from __future__ import annotations

import multiprocessing
import os
import platform
import resource
import tempfile
from pathlib import Path

import psutil

from ctrkit.core.checkup import MachineLimits
from ctrkit.core.control_groups import cpu_quota_cores, memory_left_bytes
from ctrkit.core.environment import physical_cores, usable_cpus
from ctrkit.core.lifeline import ADDED_BY_MULTIPROCESSING, fits_sockets, short_temporary_folder


def read_limits() -> MachineLimits:
    """The current limits of this process, and so of its children."""
    available_bytes = psutil.virtual_memory().available
    allowed_bytes = memory_left_bytes()
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


def _free_bytes(folder: Path) -> int | None:
    try:
        space = os.statvfs(folder)
    except OSError:
        return None
    return space.f_bavail * space.f_frsize


def _open_files() -> int | None:
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft
