"""Reads what the system knows about a process without asking it; leaves out what it cannot read."""

from __future__ import annotations

import bisect
import os
import platform
import signal
import struct
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from ctrkit.supervise.explain.scene import Process, Wait
from ctrkit.supervise.sampler import TreeSampler

_PAUSE_S = 0.3  # between two looks, to see which used CPU and which woke
_MAX_WORD, _MAX_WORDS, _MAX_THREADS, _MAX_PROCESSES = 200, 12, 64, 64
_MASKS = ("SigCgt", "SigIgn", "SigBlk")
_EXIT_CODE_FIELD = 52  # of /proc/PID/stat, counted from 1
_LINUX = sys.platform.startswith("linux")

# System calls in which a process waits, by their numbers.
_SYSCALLS = {
    "x86_64": {
        0: "read", 1: "write", 7: "poll", 17: "pread64", 18: "pwrite64", 19: "readv", 20: "writev",
        23: "select", 26: "msync", 34: "pause", 35: "nanosleep", 42: "connect", 43: "accept",
        44: "sendto", 45: "recvfrom", 46: "sendmsg", 47: "recvmsg", 61: "wait4", 65: "semop",
        72: "fcntl", 73: "flock", 74: "fsync", 75: "fdatasync", 130: "rt_sigsuspend",
        202: "futex", 220: "semtimedop", 230: "clock_nanosleep", 232: "epoll_wait", 247: "waitid",
        270: "pselect6", 271: "ppoll", 281: "epoll_pwait", 288: "accept4", 16: "ioctl",
        128: "rt_sigtimedwait",
    },
    "aarch64": {
        22: "epoll_pwait", 25: "fcntl", 29: "ioctl", 32: "flock", 63: "read", 64: "write",
        65: "readv", 66: "writev", 67: "pread64", 68: "pwrite64", 72: "pselect6", 73: "ppoll",
        82: "fsync", 83: "fdatasync", 95: "waitid", 98: "futex", 101: "nanosleep",
        115: "clock_nanosleep", 133: "rt_sigsuspend", 137: "rt_sigtimedwait", 192: "semtimedop",
        193: "semop", 202: "accept", 203: "connect", 206: "sendto", 207: "recvfrom",
        211: "sendmsg", 212: "recvmsg", 227: "msync", 242: "accept4", 260: "wait4",
    },
}  # fmt: skip
_ABOUT_A_FILE = {
    "read", "write", "pread64", "pwrite64", "readv", "writev", "connect", "accept", "accept4",
    "sendto", "recvfrom", "sendmsg", "recvmsg", "fcntl", "flock", "fsync", "fdatasync", "ioctl",
}  # fmt: skip

# Kernel functions in which such calls sleep, for when the call itself may not be read.
_KERNEL_FUNCTIONS = (
    ("futex", "futex"), ("nanosleep", "clock_nanosleep"), ("pipe_read", "read"),
    ("pipe_write", "write"), ("do_select", "select"), ("ep_poll", "epoll_wait"), ("poll", "poll"),
    ("fcntl", "fcntl"), ("locks_lock_inode", "flock"), ("flock", "flock"), ("do_wait", "wait4"),
    ("unix_stream", "recvmsg"), ("sk_wait", "recvfrom"), ("wait_for_packet", "recvfrom"),
    ("inet_csk_accept", "accept"), ("sigsuspend", "rt_sigsuspend"), ("sys_pause", "pause"),
)  # fmt: skip
_POLLFD, _MAX_POLLED, _MAX_SELECTED = struct.Struct("=ihh"), 8, 1024


@dataclass(frozen=True)
class _Clock:
    """Counters: seconds of each process on or waiting for a core, wake-ups of each thread."""

    taken_s: float
    wanted_s: dict[int, float]
    wakes: dict[int, int]


def look(root_pid: int, hurry: Callable[[], bool], most: int = _MAX_PROCESSES) -> list[Process]:
    """Look at a family twice, a moment apart; once, and without rates, if `hurry` returns true.

    The root comes first, then its descendants including zombies, at most `most` in all; empty if
    the root is gone.
    """
    family = _family(root_pid, most)
    sampler = TreeSampler(root_pid)
    before = _read_clock(family, sampler)
    found = [_describe(process) for process in family]
    if not found or hurry():
        return found
    time.sleep(_PAUSE_S)
    after = _read_clock(family, sampler)
    return [_with_rates(one, before, after) for one in found]


def _family(root_pid: int, most: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(root_pid)
        return [root, *root.children(recursive=True)][:most]
    except psutil.Error:
        return []


def exit_code(pid: int) -> int | None:
    """The exit code of a Linux zombie, negative for a signal; None for others, or if unreadable."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        return os.waitstatus_to_exitcode(int(fields[_EXIT_CODE_FIELD - 3]))
    except (OSError, ValueError, IndexError):
        return None


def limits_of(pid: int) -> dict[str, int]:
    """The resource limits that are set for a Linux process."""
    limits = {}
    for name in ("RLIMIT_AS", "RLIMIT_DATA", "RLIMIT_NOFILE"):
        with suppress(psutil.Error, AttributeError, OSError):
            soft, _ = psutil.Process(pid).rlimit(getattr(psutil, name))
            if soft != psutil.RLIM_INFINITY:
                limits[name] = int(soft)
    return limits


def catches(pid: int, number: int) -> bool | None:
    """Whether a signal would run a handler of a Linux process; None if unknown.

    A signal that its main thread blocks would not: it waits, perhaps for a `sigwait`.
    """
    masks = _signal_masks(pid)
    if masks is None:
        return None
    return bool((masks["SigCgt"] & ~masks["SigBlk"]) >> (number - 1) & 1)


def _signal_masks(pid: int) -> dict[str, int] | None:
    try:
        lines = Path(f"/proc/{pid}/status").read_text("utf-8", "replace").splitlines()
        return {line[:6]: int(line[8:], 16) for line in lines if line[:6] in _MASKS}
    except (OSError, ValueError):
        return None


def _describe(process: psutil.Process) -> Process:
    pid = process.pid
    found = Process(pid=pid, status=psutil.STATUS_DEAD)
    with suppress(psutil.Error), process.oneshot():
        found = replace(found, status=process.status(), parent_pid=process.ppid())
        found = replace(found, name=process.name(), rss_bytes=int(process.memory_info().rss))
        if found.status == psutil.STATUS_DISK_SLEEP:  # its memory may be locked, so do not read it
            return found
        words = process.cmdline()[:_MAX_WORDS]
        found = replace(found, command=tuple(word[:_MAX_WORD] for word in words))
    if not _LINUX:
        return found
    if found.is_dead:
        return replace(found, exit_code=exit_code(pid))
    masks = _signal_masks(pid) or dict.fromkeys(_MASKS, 0)
    deaf = any(masks[name] >> (signal.SIGTERM - 1) & 1 for name in ("SigCgt", "SigIgn"))
    return replace(found, waits=_waits(pid), ignores_sigterm=deaf)


def _waits(pid: int) -> tuple[Wait, ...]:
    """Where the threads of a Linux process wait, the main thread first."""
    libraries = _Libraries(pid)
    return tuple(_wait(pid, thread, libraries) for thread in _thread_ids(pid))


def _thread_ids(pid: int) -> list[int]:
    try:
        return sorted(int(path.name) for path in Path(f"/proc/{pid}/task").iterdir())[:_MAX_THREADS]
    except OSError:
        return []


def _wait(pid: int, thread: int, libraries: _Libraries) -> Wait:
    """Where one thread waits: `/proc/.../syscall` has number, arguments, stack and address."""
    try:
        words = Path(f"/proc/{pid}/task/{thread}/syscall").read_text().split()
        number, arguments, address = int(words[0]), words[1:7], int(words[-1], 16)
    except (OSError, ValueError, IndexError):  # not permitted, or the thread runs
        return Wait(thread=thread, syscall=_call_of_kernel_function(pid, thread))
    table = _SYSCALLS.get(platform.machine(), {})
    name = table.get(number, f"system call {number}") if number >= 0 else None
    values = [int(word, 16) for word in arguments]
    return Wait(
        thread=thread,
        syscall=name,
        target=_target_of(pid, name, values),
        operation=values[1] if name == "futex" else None,
        library=libraries.at(address),
    )


def _call_of_kernel_function(pid: int, thread: int) -> str | None:
    """The call, by the kernel function in which the thread sleeps; any user may read that."""
    with suppress(OSError):
        function = Path(f"/proc/{pid}/task/{thread}/wchan").read_text()
        return next((call for part, call in _KERNEL_FUNCTIONS if part in function), None)
    return None


def _target_of(pid: int, name: str | None, values: Sequence[int]) -> str | None:
    """The file, pipe or socket of a call; `a timer` for one that waits for nothing else."""
    if name in _ABOUT_A_FILE:
        return _target(pid, values[0])
    if name in ("select", "pselect6") and values[0] == 0:
        return "a timer"
    polled: list[int] = []
    if name in ("poll", "ppoll"):
        polled = _polled(pid, values[0], values[1])
    elif name in ("select", "pselect6"):
        polled = _selected(pid, values[0], values[1])
    found = [_target(pid, one) for one in polled]
    return ", ".join(dict.fromkeys(filter(None, found))) or None


def _polled(pid: int, address: int, count: int) -> list[int]:
    """The descriptors of a `struct pollfd` array, if the memory may be read."""
    with suppress(OSError, ValueError, OverflowError), open(f"/proc/{pid}/mem", "rb", 0) as memory:
        memory.seek(address)
        content = memory.read(_POLLFD.size * min(count, _MAX_POLLED))
        whole = content[: len(content) // _POLLFD.size * _POLLFD.size]
        return [descriptor for descriptor, _, _ in _POLLFD.iter_unpack(whole)]
    return []


def _selected(pid: int, count: int, address: int) -> list[int]:
    """The descriptors in the `fd_set` for reading."""
    with suppress(OSError, ValueError, OverflowError), open(f"/proc/{pid}/mem", "rb", 0) as memory:
        memory.seek(address)
        content = memory.read((min(count, _MAX_SELECTED) + 7) // 8)
        bits = int.from_bytes(content, "little")
        return [one for one in range(min(count, _MAX_SELECTED)) if bits >> one & 1][:_MAX_POLLED]
    return []


def waits_for_keys(pid: int) -> bool:
    """Whether the main thread of a Linux process waits for input from a terminal."""
    wait = _wait(pid, pid, _Libraries(0))
    is_terminal = (wait.target or "").startswith(("/dev/pts/", "/dev/tty", "/dev/console"))
    return is_terminal and wait.syscall in ("read", "poll", "ppoll", "select", "pselect6")


def _target(pid: int, descriptor: int) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/fd/{descriptor}")
    except OSError:
        return None


class _Libraries:
    """Finds the file that contains the code at an address of a Linux process."""

    def __init__(self, pid: int) -> None:
        self._starts: list[int] = []
        self._ends: list[tuple[int, str]] = []
        with suppress(OSError, ValueError):
            for line in Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines():
                span, mode, _, _, _, *path = line.split(maxsplit=5)
                if "x" in mode:
                    start, _, end = span.partition("-")
                    self._starts.append(int(start, 16))
                    name = path[0].rpartition("/")[2] if path else ""
                    self._ends.append((int(end, 16), name))

    def at(self, address: int) -> str | None:
        index = bisect.bisect_right(self._starts, address) - 1
        if index < 0 or address >= self._ends[index][0]:
            return None
        return self._ends[index][1] or None


def _read_clock(family: Sequence[psutil.Process], sampler: TreeSampler) -> _Clock:
    tree = sampler.sample(time.monotonic(), weigh=False)
    threads = [(one.pid, thread) for one in family if _LINUX for thread in _thread_ids(one.pid)]
    wakes = {thread: _wakes(pid, thread) for pid, thread in threads}
    wanted_s = {one.pid: one.cpu_s + one.queued_s for one in tree.processes}
    return _Clock(tree.taken_s, wanted_s, wakes)


def _wakes(pid: int, thread: int) -> int:
    """How often the thread has waited and woken so far."""
    with suppress(OSError, ValueError):
        lines = Path(f"/proc/{pid}/task/{thread}/status").read_text("utf-8", "replace").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt"))
    return 0


def _with_rates(process: Process, before: _Clock, after: _Clock) -> Process:
    gap_s = max(after.taken_s - before.taken_s, 1e-3)

    def rate(old: Mapping[int, float], new: Mapping[int, float], key: int) -> float | None:
        return max(0.0, new[key] - old[key]) / gap_s if key in old and key in new else None

    waits = (
        replace(wait, wakes_per_s=rate(before.wakes, after.wakes, wait.thread))
        for wait in process.waits
    )
    cores = rate(before.wanted_s, after.wanted_s, process.pid)
    return replace(process, waits=tuple(waits), cores=cores)
