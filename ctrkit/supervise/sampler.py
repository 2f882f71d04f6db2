"""Samples of a child's process tree: CPU, memory and states, on every system through psutil."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

# Reading the proportional set size walks page tables: only at new highs.
_NEW_HIGH = 1.05

STOPPED_STATES = (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)


@dataclass(frozen=True, kw_only=True)
class ProcessSample:
    """One process: its state in psutil's words, CPU seconds so far, resident bytes.

    `queued_s` is the time for which its threads were ready to run but had no core (Linux; else 0).
    """

    pid: int
    parent_pid: int
    name: str
    status: str
    cpu_s: float
    queued_s: float
    rss_bytes: int


@dataclass(frozen=True, kw_only=True)
class TreeSample:
    """The tree at `taken_s` (monotonic). `cpu_s` adds up all processes seen so far, ended too.

    `wanted_s` adds the time queued for a core: on a crowded host a spinning tree burns little.
    """

    taken_s: float
    cpu_s: float
    wanted_s: float
    processes: tuple[ProcessSample, ...] = ()

    @property
    def rss_bytes(self) -> int:
        """Resident bytes; memory that processes share is counted in each."""
        return sum(process.rss_bytes for process in self.processes)


class TreeSampler:
    """Samples a process and its descendants; remembers what ended ones had burned, and the peak."""

    def __init__(self, root_pid: int) -> None:
        self._root_pid = root_pid
        self._newest: dict[tuple[int, float], ProcessSample] = {}
        self._peak_rss_bytes = 0
        self._peak_pss_bytes = 0
        self._rss_at_last_pss = 0

    @property
    def peak_bytes(self) -> int | None:
        """The most memory the tree had: proportional where the system tells, else resident."""
        return self._peak_pss_bytes or self._peak_rss_bytes or None

    def sample(self, now_s: float, *, weigh: bool = True) -> TreeSample:
        """The tree now. `weigh=False` leaves out the costly memory figure.

        Do so while a child is silent: the costly figure waits for locks of the watched processes.
        """
        live = self._live()
        found = [sample for process in live if (sample := self._look(process)) is not None]
        cpu_s = sum(process.cpu_s for process in self._newest.values())
        queued_s = sum(process.queued_s for process in self._newest.values())
        tree = TreeSample(
            taken_s=now_s, cpu_s=cpu_s, wanted_s=cpu_s + queued_s, processes=tuple(found)
        )
        self._peak_rss_bytes = max(self._peak_rss_bytes, tree.rss_bytes)
        if weigh and tree.rss_bytes > _NEW_HIGH * self._rss_at_last_pss:
            self._rss_at_last_pss = tree.rss_bytes
            self._peak_pss_bytes = max(self._peak_pss_bytes, _pss_bytes(live))
        return tree

    def _live(self) -> list[psutil.Process]:
        try:
            root = psutil.Process(self._root_pid)
            return [root, *root.children(recursive=True)]
        except psutil.Error:
            return []

    def _look(self, process: psutil.Process) -> ProcessSample | None:
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
                )
                self._newest[(process.pid, process.create_time())] = sample
                return sample
        except psutil.Error:
            return None


def _queued_s(pid: int) -> float:
    """Seconds for which the threads of a process waited for a core; 0 where it is not told."""
    total_ns = 0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            total_ns += int(path.read_bytes().split()[1])
        except (OSError, IndexError):
            continue
    return total_ns / 1e9


def _pss_bytes(processes: list[psutil.Process]) -> int:
    """Proportional set size of the processes together; 0 where the system has none."""
    if not sys.platform.startswith("linux"):
        return 0
    total = 0
    for process in processes:
        try:
            total += int(process.memory_full_info().pss)
        except (psutil.Error, OSError):
            continue
    return total


def host_slept_s() -> float:
    """Seconds this host has slept since it was started; 0 where no pair of clocks tells."""
    for awake_and_asleep, awake in (
        ("CLOCK_BOOTTIME", "CLOCK_MONOTONIC"),
        ("CLOCK_MONOTONIC_RAW", "CLOCK_UPTIME_RAW"),
    ):
        if hasattr(time, awake_and_asleep) and hasattr(time, awake):
            both_s = time.clock_gettime(getattr(time, awake_and_asleep))
            return max(0.0, both_s - time.clock_gettime(getattr(time, awake)))
    return 0.0
