"""Samples of a child's process tree: CPU, memory and states, on every system through psutil."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

import psutil

# Reading the proportional set size walks page tables: only at new highs, and not often.
_PSS_EVERY_S = 2.0
_PSS_NEW_HIGH = 1.05

STOPPED_STATES = (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)


@dataclass(frozen=True, kw_only=True)
class ProcessSample:
    """One process: its state in psutil's words, CPU seconds so far, resident bytes."""

    pid: int
    parent_pid: int
    name: str
    status: str
    cpu_s: float
    rss_bytes: int


@dataclass(frozen=True, kw_only=True)
class TreeSample:
    """The tree at `taken_s` (monotonic). `cpu_s` adds up all processes seen so far, ended too."""

    taken_s: float
    cpu_s: float
    processes: tuple[ProcessSample, ...] = ()

    @property
    def rss_bytes(self) -> int:
        """Resident bytes; memory that processes share is counted in each."""
        return sum(process.rss_bytes for process in self.processes)


class TreeSampler:
    """Samples a process and its descendants; remembers what ended ones had burned, and the peak."""

    def __init__(self, root_pid: int) -> None:
        self._root_pid = root_pid
        self._cpu_s: dict[tuple[int, float], float] = {}
        self._peak_rss_bytes = 0
        self._peak_pss_bytes = 0
        self._rss_at_last_pss = 0
        self._next_pss_s = 0.0

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
        tree = TreeSample(taken_s=now_s, cpu_s=sum(self._cpu_s.values()), processes=tuple(found))
        self._peak_rss_bytes = max(self._peak_rss_bytes, tree.rss_bytes)
        new_high = tree.rss_bytes > _PSS_NEW_HIGH * self._rss_at_last_pss
        if weigh and new_high and now_s >= self._next_pss_s:
            self._next_pss_s = now_s + _PSS_EVERY_S
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
                cpu_s = float(times.user + times.system)
                self._cpu_s[(process.pid, process.create_time())] = cpu_s
                return ProcessSample(
                    pid=process.pid,
                    parent_pid=process.ppid(),
                    name=str(process.name()),
                    status=str(process.status()),
                    cpu_s=cpu_s,
                    rss_bytes=int(process.memory_info().rss),
                )
        except psutil.Error:
            return None


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
