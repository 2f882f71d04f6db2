"""CPU seconds of a process and of its children, without anything but the system's own."""

from __future__ import annotations

import os

_TICKS_PER_S = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def family_cpu_s() -> float | None:
    """Of this process and all below it; None where /proc does not tell of the others.

    Children that have ended count with who waited for them: otherwise the sum would fall.
    """
    own = os.times()
    total_s = own.user + own.system + own.children_user + own.children_system
    if not os.path.isdir("/proc/self"):
        return None
    parents, used_s = _processes()
    waiting = [os.getpid()]
    while waiting:
        for child in parents.get(waiting.pop(), []):
            total_s += used_s[child]
            waiting.append(child)
    return total_s


def _processes() -> tuple[dict[int, list[int]], dict[int, float]]:
    """The children of each process, and what each has used."""
    children: dict[int, list[int]] = {}
    used_s: dict[int, float] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(name))
        # its own time, and that of its children that have ended
        used_s[int(name)] = sum(map(int, fields[11:15])) / _TICKS_PER_S
    return children, used_s
