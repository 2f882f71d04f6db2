"""Proof that the kernel killed for memory: the counters of the control groups of a family (Linux).

A SIGKILL alone proves nothing: anybody may send one. Both versions of control groups count in
`oom_kill` how many of their processes the kernel has killed to free memory.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from pathlib import Path

_V1, _V2 = ("memory", "memory.oom_control"), ("", "memory.events")
_COUNT = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


class KillCounters:
    """Follows the counters of all groups in which the family was seen."""

    def __init__(self, root: Path = Path("/sys/fs/cgroup"), proc: Path = Path("/proc")) -> None:
        self._root, self._proc, self._began_s = root, proc, time.time()
        self._first: dict[Path, int] = {}
        self._last: dict[Path, int] = {}

    def watch(self, pids: Iterable[int]) -> None:
        """Note the groups of these processes and read all counters."""
        for pid in pids:
            for path in self._counters_of(pid):
                if path not in self._first and (count := _count(path)) is not None:
                    self._first[path] = 0 if self._is_new(path) else count
        self.read()

    def read(self) -> None:
        """Read the counters again; those of a group that is gone keep what they had."""
        for path in self._first:
            if (count := _count(path)) is not None:
                self._last[path] = count

    def kills(self) -> int:
        """How many processes of these groups were killed for memory since they were first seen.

        Groups lie in each other, and one kill counts in all of them.
        """
        return max((last - self._first[path] for path, last in self._last.items()), default=0)

    def _is_new(self, path: Path) -> bool:
        """Whether the group was made since: then all that it has counted is the family's."""
        try:
            return path.parent.stat().st_ctime >= self._began_s
        except OSError:
            return False

    def _counters_of(self, pid: int) -> list[Path]:
        try:
            lines = (self._proc / str(pid) / "cgroup").read_text().splitlines()
        except OSError:
            return []
        found = []
        for line in lines:
            _, controllers, group = line.split(":", 2)
            for controller, name in (_V1, _V2):
                if controller == "memory" and controller in controllers.split(","):
                    found.append(self._file(self._root / "memory", group, name))
                elif not controller and not controllers:
                    found.append(self._file(self._root, group, name))
        return [path for path in found if path is not None]

    def _file(self, root: Path, group: str, name: str) -> Path | None:
        # inside a container the root of the tree that is seen may be the group itself
        for path in (root / group.lstrip("/") / name, root / name):
            if path.is_file():
                return path
        return None


def _count(path: Path) -> int | None:
    try:
        match = _COUNT.search(path.read_text())
    except OSError:
        return None
    return int(match[1]) if match else None
