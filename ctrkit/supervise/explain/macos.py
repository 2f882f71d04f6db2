"""What a macOS process waits for: `sample` reads its native stacks without a signal."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace

from ctrkit.supervise.explain.scene import Process, Wait

_SAMPLE_S = 15.0
_MAX_SAMPLED = 12
_LINE = re.compile(r"^(?P<indent>[ +!:|]*)(?P<count>\d+) (?P<what>.+)$")
_FUNCTION = re.compile(r"^(?P<name>\S+)\s+\(in (?P<library>[^)]+)\)")
# Functions of the system's library in which threads sleep, with equivalent Linux calls.
_CALLS = {
    "__psynch_cvwait": "futex", "__psynch_mutexwait": "futex", "__ulock_wait": "futex",
    "__ulock_wait2": "futex", "semaphore_wait_trap": "futex", "semaphore_timedwait_trap": "futex",
    "__semwait_signal": "nanosleep", "__semwait_signal_nocancel": "nanosleep", "__select": "select",
    "sem_wait": "semop", "__sem_wait": "semop", "poll": "poll", "__poll": "poll", "read": "read",
    "__read_nocancel": "read", "write": "write", "__write_nocancel": "write", "kevent": "kevent",
    "__recvfrom": "recvfrom", "__recvmsg": "recvmsg", "__accept": "accept", "__connect": "connect",
    "__wait4": "wait4", "__wait4_nocancel": "wait4", "flock": "flock", "__flock": "flock",
    "__fcntl": "fcntl", "__fcntl_nocancel": "fcntl", "__sigsuspend": "rt_sigsuspend",
    "fsync": "fsync", "__pread_nocancel": "pread64", "mach_msg2_trap": "mach_msg",
}  # fmt: skip


def with_native_waits(processes: Sequence[Process]) -> list[Process]:
    """The processes with what their main threads wait for; unchanged on other systems."""
    if sys.platform != "darwin":
        return list(processes)
    alive = [one for one in processes if not one.is_dead][:_MAX_SAMPLED]
    found = {one.pid: parse_sample(_sample(one.pid), one.pid) for one in alive}
    return [
        replace(one, waits=(wait,)) if (wait := found.get(one.pid)) is not None else one
        for one in processes
    ]


def _sample(pid: int) -> str:
    argv = ["/usr/bin/sample", str(pid), "1", "-mayDie", "-file", "/dev/stdout"]
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, errors="replace", timeout=_SAMPLE_S,
            stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout


def parse_sample(text: str, pid: int) -> Wait | None:
    """Where the main thread (the first one) spent most of the time; None if not in a call.

    Lines of the call graph get deeper until a sibling or another thread follows.
    """
    _, found, graph = text.partition("Call graph:")
    innermost = None
    threads = 0
    for line in graph.splitlines() if found else ():
        match = _LINE.match(line)
        if match is None:
            continue
        if "Thread_" in match["what"]:
            threads += 1
            depth, most = -1, 0
            if threads > 1:
                break
            continue
        if len(match["indent"]) <= depth and int(match["count"]) <= most:
            break  # a sibling, in which it was less often
        depth, most = len(match["indent"]), int(match["count"])
        innermost = _FUNCTION.match(match["what"])
    if innermost is None or innermost["name"] not in _CALLS:
        return None
    return Wait(thread=pid, syscall=_CALLS[innermost["name"]], library=innermost["library"])
