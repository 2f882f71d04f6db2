"""Finds which rank of a script's run was late within the last minute."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path

from ctrkit.measure.ranks import LateRank, RankTimes, late_rank, read_rank_times

_WINDOW_S = 60.0
_SURE_S = 20.0  # the first batches of a rank may be slow for other reasons

Read = Callable[[Path, float | None], list[RankTimes]]


class RanksWatch:
    """Keeps the readings of the last minute.

    Args:
        folder: the child's folder.
        read: reads the times of all ranks.
    """

    def __init__(self, folder: Path, read: Read = read_rank_times) -> None:
        self._folder, self._read = folder, read
        self._readings: deque[tuple[float, dict[int, RankTimes]]] = deque()

    def look(self, now_s: float) -> LateRank | None:
        """Read the ranks again; returns the rank that the others wait for, if there is one.

        `now_s` is `time.monotonic()`.
        """
        ranks = {one.rank: one for one in self._read(self._folder, now_s) if one.steps}
        if len(ranks) < 2:
            return None
        if self._readings and self._readings[-1][1].keys() != ranks.keys():
            self._readings.clear()
        self._readings.append((now_s, ranks))
        while len(self._readings) > 2 and now_s - self._readings[1][0] >= _WINDOW_S:
            self._readings.popleft()
        first = self._readings[0][1]
        return late_rank([one.since(first[rank]) for rank, one in ranks.items()])

    @property
    def is_sure(self) -> bool:
        """Whether the ranks were watched long enough to report it."""
        return bool(self._readings) and self._readings[-1][0] - self._readings[0][0] >= _SURE_S
