"""Samples a child's process tree with psutil: CPU, memory and states."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

# Reading the proportional set size walks page tables, so only at new highs.
_NEW_HIGH = 1.05

# nanosleep and clock_nanosleep
_SLEEP_CALLS = {"x86_64": (35, 230), "aarch64": (101, 115)}.get(platform.machine(), ())
# select and pselect6; without a descriptor that is `time.sleep` in Python 3.10 and older
_SELECT_CALLS = {"x86_64": (23, 270), "aarch64": (72,)}.get(platform.machine(), ())

STOPPED_STATES = (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)


@dataclass(frozen=True, kw_only=True)
class ProcessSample:
    """One process: its state (psutil's word), CPU seconds so far, resident bytes.

    Attributes:
        queued_s: seconds for which its threads were ready but had no core (Linux; else 0).
        on_timer: its main thread sleeps until a set time (known only on Linux); read on request.
        on_network: it sleeps and is connected to another host; read on request.
    """

    pid: int
    parent_pid: int
    name: str
    status: str
    cpu_s: float
    queued_s: float
    rss_bytes: int
    on_timer: bool = False
    on_network: bool = False


@dataclass(frozen=True, kw_only=True)
class TreeSample:
    """The process tree at one moment.

    Attributes:
        taken_s: monotonic time.
        cpu_s: CPU seconds of all processes seen so far, ended ones too.
        wanted_s: `cpu_s` plus the time queued for a core: on a crowded host a spinning tree uses
            little CPU.
    """

    taken_s: float
    cpu_s: float
    wanted_s: float
    processes: tuple[ProcessSample, ...] = ()

    @property
    def rss_bytes(self) -> int:
        """Resident bytes; shared memory counts in each process."""
        return sum(process.rss_bytes for process in self.processes)


class TreeSampler:
    """Samples a process and its descendants; remembers CPU time of ended ones, and the peak.

    Args:
        root_pid: the process.
        shares_with: the server that forked it. Memory shared with the server counts as the tree's
            own, as if the process had been started anew.
    """

    def __init__(self, root_pid: int, *, shares_with: int | None = None) -> None:
        self._root_pid, self._shares_with = root_pid, shares_with
        self._newest: dict[tuple[int, float], ProcessSample] = {}
        self._peak_rss_bytes = 0
        self._peak_pss_bytes = 0
        self._rss_at_last_pss = 0

    @property
    def peak_bytes(self) -> int | None:
        """Peak memory of the tree: proportional if the system tells, else resident."""
        return self._peak_pss_bytes or self._peak_rss_bytes or None

    def sample(self, now_s: float, *, weigh: bool = True, waits: bool = False) -> TreeSample:
        """Sample the tree. `weigh=False` skips the costly memory figure, `waits` adds timers.

        Use both while a child is silent: the costly figure waits for locks of the processes.
        """
        live = self._live()
        looks = (self._look(process, waits=waits) for process in live)
        found = [sample for sample in looks if sample is not None]
        cpu_s = sum(process.cpu_s for process in self._newest.values())
        queued_s = sum(process.queued_s for process in self._newest.values())
        tree = TreeSample(
            taken_s=now_s, cpu_s=cpu_s, wanted_s=cpu_s + queued_s, processes=tuple(found)
        )
        self._peak_rss_bytes = max(self._peak_rss_bytes, tree.rss_bytes)
        if weigh and tree.rss_bytes > _NEW_HIGH * self._rss_at_last_pss:
            self._rss_at_last_pss = tree.rss_bytes
            weight = _pss_bytes(live) + _shared_bytes(self._shares_with)
            self._peak_pss_bytes = max(self._peak_pss_bytes, weight)
        return tree

    def _live(self) -> list[psutil.Process]:
        try:
            root = psutil.Process(self._root_pid)
            return [root, *root.children(recursive=True)]
        except psutil.Error:
            return []

    def _look(self, process: psutil.Process, *, waits: bool) -> ProcessSample | None:
        try:
            with process.oneshot():
                times = process.cpu_times()
                sample = ProcessSample(
                    pid=process.pid,
                    parent_pid=process.ppid(),
                    name=str(process.name()),
                    status=str(process.status()),
                    cpu_s=float(times.user + times.system),
                    queued_s=_queued_s(process.pid),
                    rss_bytes=int(process.memory_info().rss),
                    on_timer=waits and _is_on_timer(process.pid),
                    on_network=waits and _is_on_network(process),
                )
                self._newest[(process.pid, process.create_time())] = sample
                return sample
        except psutil.Error:
            return None


def private_bytes(pids: Iterable[int]) -> int | None:
    """Private memory of these processes: without mapped files and shared memory.

    None if the system does not distinguish them (macOS), or if a process has ended.
    """
    total = 0
    for pid in pids:
        try:
            memory = psutil.Process(pid).memory_info()
        except psutil.Error:
            return None
        if not hasattr(memory, "shared"):
            return None
        total += max(0, int(memory.rss - memory.shared))
    return total or None


def _is_on_timer(pid: int) -> bool:
    """Whether the main thread sleeps for a set time, and so will continue; False if unknown."""
    # not every kernel lets these files be read, or fills them
    with suppress(OSError):
        if "nanosleep" in Path(f"/proc/{pid}/wchan").read_text():
            return True
    with suppress(OSError, ValueError, IndexError):
        words = Path(f"/proc/{pid}/syscall").read_text().split()
        call = int(words[0])
        return call in _SLEEP_CALLS or (call in _SELECT_CALLS and int(words[1], 16) == 0)
    return False


def _is_on_network(process: psutil.Process) -> bool:
    """Whether it sleeps with a connection to another host; False if unknown."""
    if process.status() != psutil.STATUS_SLEEPING:
        return False
    look = getattr(process, "net_connections", None) or process.connections
    with suppress(psutil.Error, OSError):
        return any(
            one.raddr and one.status == psutil.CONN_ESTABLISHED and not _is_loopback(one.raddr.ip)
            for one in look(kind="tcp")
        )
    return False


def _is_loopback(address: str) -> bool:
    return address.startswith(("127.", "::ffff:127.")) or address == "::1"


def _queued_s(pid: int) -> float:
    """Seconds for which a process's threads waited for a core; 0 if unknown."""
    total_ns = 0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            total_ns += int(path.read_bytes().split()[1])
        except (OSError, IndexError):
            continue
    return total_ns / 1e9


def _pss_bytes(processes: list[psutil.Process]) -> int:
    """Proportional set size of the processes together; 0 if the system has none."""
    if not sys.platform.startswith("linux"):
        return 0
    total = 0
    for process in processes:
        try:
            total += int(process.memory_full_info().pss)
        except (psutil.Error, OSError):
            continue
    return total


def _shared_bytes(pid: int | None) -> int:
    """Bytes of a forked process's share in its server that its own PSS does not count.

    0 without a server.

    That is the server's share in the pages of both, and pages of libraries that the import touched
    only in the server; not pages that the forked process has replaced.
    """
    if pid is None:
        return 0
    found: dict[str, int] = {}
    with suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
            name, _, value = line.partition(":")
            found[name] = 1024 * int(value.split()[0])
    return found.get("Pss", 0) - found.get("Private_Dirty", 0)


def host_slept_s() -> float:
    """Seconds that this host has slept since it started; 0 if no pair of clocks tells."""
    for awake_and_asleep, awake in (
        ("CLOCK_BOOTTIME", "CLOCK_MONOTONIC"),
        ("CLOCK_MONOTONIC_RAW", "CLOCK_UPTIME_RAW"),
    ):
        if hasattr(time, awake_and_asleep) and hasattr(time, awake):
            both_s = time.clock_gettime(getattr(time, awake_and_asleep))
            return max(0.0, both_s - time.clock_gettime(getattr(time, awake)))
    return 0.0
