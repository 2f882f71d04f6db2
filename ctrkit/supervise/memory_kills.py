"""Proves that the kernel killed for memory, from control group counters of a family (Linux).

A SIGKILL alone proves nothing, because anybody may send one. Both versions of control groups count
in `oom_kill` how many of their processes the kernel has killed to free memory.

A process may enter a group and be killed in it between two readings, and the group may vanish with
it. cgroup v2 also counts the kill in every group above. Other jobs count there, too, so an increase
above is used only for a short time: that in which the death it caused is noticed.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

_V1, _V2 = ("memory", "memory.oom_control"), ("", "memory.events")
#: torch checks for dead workers every 5 s, and a failing child may take more time to end
_NOTICED_WITHIN_S = 30.0
_COUNT = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


class KillCounters:
    """Follows the counters of all groups in which the family was seen, and of groups above."""

    def __init__(
        self,
        root: Path = Path("/sys/fs/cgroup"),
        proc: Path = Path("/proc"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._root, self._proc, self._clock, self._began_s = root, proc, clock, time.time()
        self._first: dict[Path, int] = {}
        self._last: dict[Path, int] = {}
        self._above: dict[Path, deque[tuple[float, int]]] = {}

    def watch(self, pids: Iterable[int]) -> None:
        """Add the groups of these processes, and read all counters."""
        for pid in pids:
            for path in self._counters_of(pid):
                if path not in self._first and (count := _count(path)) is not None:
                    self._first[path] = 0 if self._is_new(path) else count
                for above in self._groups_above(path):
                    self._above.setdefault(above, deque())
        self.read()

    def read(self) -> None:
        """Read the counters again; a group that is gone keeps its last value."""
        for path in self._first:
            if (count := _count(path)) is not None:
                self._last[path] = count
        now_s = self._clock()
        for path, counts in self._above.items():
            if (count := _count(path)) is not None:
                counts.append((now_s, count))
            while len(counts) > 1 and counts[1][0] <= now_s - _NOTICED_WITHIN_S:
                counts.popleft()

    def kills(self) -> int:
        """How many processes were killed for memory since their groups were first seen.

        For groups above, only kills of the last half minute count. Groups are nested and count the
        same kill, so this is the largest of their counts.
        """
        own = (last - self._first[path] for path, last in self._last.items())
        above = (counts[-1][1] - counts[0][1] for counts in self._above.values() if counts)
        return max((*own, *above), default=0)

    def _is_new(self, path: Path) -> bool:
        """Whether the group is new, so that everything it has counted belongs to the family."""
        try:
            return path.parent.stat().st_ctime >= self._began_s
        except OSError:
            return False

    def _counters_of(self, pid: int) -> list[Path]:
        try:
            lines = (self._proc / str(pid) / "cgroup").read_text("utf-8", "replace").splitlines()
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

    def _groups_above(self, counter: Path) -> list[Path]:
        """The counters of all groups above a counter's group (v2)."""
        if counter.name != _V2[1]:
            return []
        folders = (folder for folder in counter.parent.parents if folder.is_relative_to(self._root))
        return [file for folder in folders if (file := folder / counter.name).is_file()]

    def _file(self, root: Path, group: str, name: str) -> Path | None:
        # inside a container, the visible root may be the group itself
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
