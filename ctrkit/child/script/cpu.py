"""CPU seconds of a process and its children, from the operating system alone.

Linux shows them in /proc, macOS by two functions of its libproc.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

_TICKS_PER_S = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
#: Constants of macOS's libproc: to list processes with this parent; the form of a resource usage
#: that includes ended children, and the positions of its times.
_PPID_ONLY, _RUSAGE_V1 = 6, 1
_USER, _SYSTEM, _CHILD_USER, _CHILD_SYSTEM = 2, 3, 12, 13
_MOST_CHILDREN = 4096
_LIBPROC = "/usr/lib/libproc.dylib"


class Children(NamedTuple):
    """How a system lists a process's children, and the CPU seconds that a process has used.

    A process's seconds include those of its ended children. `used_s` gives None for a process that
    has ended meanwhile.
    """

    of: Callable[[int], list[int]]
    used_s: Callable[[int], float | None]


def family_cpu_s(children: Children | None = None) -> float | None:
    """CPU seconds of this process and all its descendants; None if the system does not show others.

    An ended child counts with the process that waited for it, so the sum never falls.

    Args:
        children: how to find children; this system's way by default.
    """
    own = os.times()
    total_s = own.user + own.system + own.children_user + own.children_system
    children = children or _children_here()
    if children is None:
        return None
    waiting, seen = [os.getpid()], {os.getpid()}
    while waiting:
        for child in children.of(waiting.pop()):
            used_s = children.used_s(child)
            if child in seen or used_s is None:
                continue
            seen.add(child)
            total_s += used_s
            waiting.append(child)
    return total_s


def _children_here(platform: str = sys.platform) -> Children | None:
    if os.path.isdir("/proc/self"):
        return children_of_proc()
    if platform != "darwin":
        return None
    try:
        import ctypes

        return children_of_libproc(ctypes.CDLL(_LIBPROC), _timebase(ctypes.CDLL(None)))
    except (OSError, AttributeError):
        return None


def children_of_proc(folder: str = "/proc") -> Children:
    """Linux's way: it reads all processes at once."""
    children: dict[int, list[int]] = {}
    used_s: dict[int, float] = {}
    for name in os.listdir(folder):
        if not name.isdigit():
            continue
        try:
            with open(f"{folder}/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(name))
        # its own time, plus that of its ended children
        used_s[int(name)] = sum(map(int, fields[11:15])) / _TICKS_PER_S
    return Children(lambda pid: children.get(pid, []), used_s.get)


def children_of_libproc(libproc: Any, seconds_per_tick: float) -> Children:
    """The way of macOS, with times in ticks of the machine's clock."""
    import ctypes

    def of(pid: int) -> list[int]:
        pids = (ctypes.c_int * _MOST_CHILDREN)()
        libproc.proc_listpids(_PPID_ONLY, pid, pids, ctypes.sizeof(pids))
        return [child for child in pids if child > 0]

    def used_s(pid: int) -> float | None:
        usage = (ctypes.c_uint64 * 64)()
        if libproc.proc_pid_rusage(pid, _RUSAGE_V1, usage) != 0:
            return None
        ticks = (usage[word] for word in (_USER, _SYSTEM, _CHILD_USER, _CHILD_SYSTEM))
        return sum(map(int, ticks)) * seconds_per_tick

    return Children(of, used_s)


def _timebase(system: Any) -> float:
    """Seconds per tick: a nanosecond on Intel, 125/3 nanoseconds on Apple's chips."""
    import ctypes

    ratio = (ctypes.c_uint32 * 2)()
    system.mach_timebase_info(ratio)
    return ratio[0] / ratio[1] / 1e9
