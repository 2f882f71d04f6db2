"""Counts what a process and its workers read from files, and the CPU time of its workers (Linux).

Counters of `/proc/PID/io` include the children that a process has waited for (`man 5 proc`), so
they do not fall when a worker ends. Only the standard library: a script's Python runs it, too.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Mapping
from typing import Any

_TICKS_PER_S = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_LOOKS, _BETWEEN_S = 8, 0.002
_MOST_PROCESSES, _MOST_FILES = 8, 64
#: Files of this size or more that are mapped count as data, unless they are programs.
_MAPPED_BYTES = 1 << 20
#: Libraries that start threads of their own, by a part of their file's name.
_LIBRARIES = {
    "libgomp": "OpenMP", "libomp": "OpenMP", "libiomp": "OpenMP", "openblas": "OpenBLAS",
    "libmkl": "MKL", "opencv": "OpenCV", "cv2": "OpenCV", "polars": "Polars",
    "tokenizers": "tokenizers", "libarrow": "Arrow", "libtbb": "TBB",
}  # fmt: skip


def counters() -> dict[str, float]:
    """The counters as they are now; empty without `/proc` (macOS).

    `read_bytes` and `read_calls`: bytes and calls of `read` by the workers, or by this process if
    it has no workers. `storage_bytes`: the part of `read_bytes` that came from storage, not from
    the page cache. `worker_cpu_s`: CPU seconds of the workers. `io_stall_s`: seconds for which some
    process waited for storage, in this control group or on this machine. `disk:NAME`: seconds for
    which that disk was busy.
    """
    found = {"read_bytes": 0.0, "storage_bytes": 0.0, "read_calls": 0.0}
    pids = _family()
    if not pids:
        return {}
    for pid in pids[1:] or pids:  # where there are workers, they read
        for line in _lines(f"/proc/{pid}/io"):
            name, _, value = line.partition(": ")
            key = {"rchar": "read_bytes", "syscr": "read_calls", "read_bytes": "storage_bytes"}.get(
                name
            )
            if key is not None:
                found[key] += float(value)
    own = os.times()
    found["worker_cpu_s"] = own.children_user + own.children_system
    found["worker_cpu_s"] += sum(_cpu_s(pid) for pid in pids[1:])
    stall_s = _stall_s()
    if stall_s is not None:
        found["io_stall_s"] = stall_s
    found.update(_disks())
    return found


def between(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """The differences between two readings; `disk_busy_s` is that of the busiest disk."""
    gone = {key: max(0.0, after[key] - value) for key, value in before.items() if key in after}
    busy = [gone.pop(key) for key in list(gone) if key.startswith("disk:")]
    if busy:
        gone["disk_busy_s"] = max(busy)
    return gone


def files_in_use(besides: str) -> dict[str, Any]:
    """The data files that this process and its workers have open or mapped, from a few quick looks.

    `files`: their number; `median_bytes`: their median size; `file_system`: the kind that most of
    them lie on. Empty if none was seen: a file that is closed at once is only seen by luck. Paths
    that begin with `besides`, the trial's own folder, are left out.
    """
    pids = _family()[:_MOST_PROCESSES]
    seen: dict[tuple[int, int], tuple[str, int]] = {}
    for look in range(_LOOKS if pids else 0):
        if look:
            time.sleep(_BETWEEN_S)
        for pid in pids:
            for path in (*_opened(pid), *(_mapped(pid) if not look else ())):
                if not path.startswith(besides):
                    _note(path, seen)
    if not seen:
        return {}
    sizes = sorted(size for _, size in seen.values())
    systems = [system for path, _ in seen.values() if (system := file_system_of(path))]
    most = max(systems, key=systems.count) if systems else ""
    return {"files": len(seen), "median_bytes": sizes[len(sizes) // 2], "file_system": most}


def threads_of_workers() -> dict[str, Any]:
    """`worker_threads`: the most that a worker has; `libraries`: those known to start threads."""
    workers = _family()[1 : 1 + _MOST_PROCESSES]
    counts, names = [], set()
    for pid in workers:
        counts += [int(line.split()[1]) for line in _lines(f"/proc/{pid}/status")
                   if line.startswith("Threads:")]  # fmt: skip
    for line in _lines(f"/proc/{workers[0]}/maps") if workers else ():
        file = line.rpartition("/")[2].lower()
        names |= {name for part, name in _LIBRARIES.items() if part in file}
    return {"worker_threads": max(counts), "libraries": sorted(names)} if counts else {}


def file_system_of(path: str, mounts: str = "/proc/self/mountinfo") -> str:
    """The kind of file system that a path lies on, such as `ext4` or `nfs4`; empty if unknown."""
    best, kind = -1, ""
    for line in _lines(mounts):
        head, _, tail = line.partition(" - ")
        fields = head.split()
        if len(fields) < 5 or not tail:
            continue
        point = fields[4].replace("\\040", " ")
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= best:
            best, kind = len(point), tail.split()[0]
    return kind


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()
    except OSError:
        return []


def _family() -> list[int]:
    """Process ids: this process first, then all its descendants; empty without `/proc`."""
    if not os.path.isdir("/proc/self"):
        return []
    found = [os.getpid()]
    for pid in found:
        try:
            tasks = os.listdir(f"/proc/{pid}/task")
        except OSError:
            continue
        for task in tasks:
            for line in _lines(f"/proc/{pid}/task/{task}/children"):
                found += [int(word) for word in line.split()]
    return found


def _cpu_s(pid: int) -> float:
    """CPU seconds of a living process and of the children that it has waited for."""
    text = "".join(_lines(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return sum(map(int, text[11:15])) / _TICKS_PER_S if len(text) > 15 else 0.0


def _stall_s() -> float | None:
    """Seconds that some process waited for I/O (pressure stall information).

    Of this process's control group if it has such a figure, else of the machine.
    """
    own = [line for line in _lines("/proc/self/cgroup") if line.startswith("0::")]
    group = f"/sys/fs/cgroup{own[0][3:].rstrip('/')}/io.pressure" if own else ""
    for path in (group, "/proc/pressure/io"):
        for line in _lines(path) if path else ():
            if line.startswith("some"):
                return float(line.rpartition("total=")[2]) / 1e6
    return None


def _disks() -> dict[str, float]:
    """Seconds for which each whole disk was busy since the machine started."""
    found = {}
    for line in _lines("/proc/diskstats"):
        fields = line.split()
        if len(fields) > 12 and os.path.isdir(f"/sys/block/{fields[2]}"):
            found[f"disk:{fields[2]}"] = int(fields[12]) / 1000
    return found


def _opened(pid: int) -> list[str]:
    try:
        numbers = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return []
    found = []
    for number in numbers:
        try:
            found.append(os.readlink(f"/proc/{pid}/fd/{number}"))
        except OSError:
            continue
    return found


def _mapped(pid: int) -> list[str]:
    return [
        path
        for line in _lines(f"/proc/{pid}/maps")
        if " r-" in line and (path := line[line.find("/") :] if "/" in line else "")
    ]


def _note(path: str, seen: dict[tuple[int, int], tuple[str, int]]) -> None:
    """Add a file to `seen`, unless it is a program, a part of Python, shared memory or a log."""
    if not path.startswith("/") or len(seen) >= _MOST_FILES:
        return
    if path.startswith(("/dev/", "/proc/", "/sys/", "/memfd:")) or _is_program(path):
        return
    try:
        info = os.stat(path)
    except OSError:
        return
    if stat.S_ISREG(info.st_mode) and info.st_size > 0:
        seen[info.st_dev, info.st_ino] = (path, info.st_size)


def _is_program(path: str) -> bool:
    """Whether the file is code, or lies in a folder of packages."""
    name = path.rpartition("/")[2]
    places = (
        "/site-packages/",
        "/dist-packages/",
        "/lib/python",
        "/usr/lib",
        "/usr/share",
        "/lib/",
    )
    return (
        name.endswith((".py", ".pyc", ".so", ".log"))
        or ".so." in name
        or any(place in path for place in places[:3])
        or path.startswith(places[3:])
    )
