"""Decides how much of the second epoch to measure: more if its pace may differ from the first's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

#: More steps of the second epoch are measured if that takes at most this share of the throughput
#: window, ...
_LOOK_SHARE = 0.1
#: ... and so many steps after the batches that were queued ahead. If the pace changed by this
#: share, the second epoch is measured for as long as the first one was.
_LOOK_STEPS, _OTHER_PACE = 6, 0.2


@dataclass(frozen=True)
class SecondEpoch:
    """Compares the second epoch with the first one, step by step.

    Args:
        stamps: the stamps of both epochs; they grow with each step.
        first_stamp: index of the second epoch's first stamp.
        warmup_steps: warm-up steps of the first epoch; batches made ahead are fast in both.
        window_s: seconds of the throughput window.
        window_steps: steps in that window.
    """

    stamps: Any
    first_stamp: int
    warmup_steps: int
    window_s: float
    window_steps: int

    def is_worth_it(self, step: int) -> bool:
        """Whether to measure more steps after the boundary: it is cheap, or the pace differs by 2x.

        `step` is the number of the latest step.
        """
        if step >= self._last_known:
            return False
        step_s = self.window_s / self.window_steps
        if (self.warmup_steps + _LOOK_STEPS) * step_s <= 2 * _LOOK_SHARE * self.window_s:
            return True
        pace = self._pace()
        return pace is not None and not 0.5 < pace < 2

    def is_enough(self, step: int, seen_s: float) -> bool:
        """Whether the pace is clear after `step` steps, `seen_s` seconds after the boundary.

        It is also enough if the first epoch has no more steps to compare with.
        """
        if step >= self._last_known:
            return True
        past_the_queue = step >= self.warmup_steps + _LOOK_STEPS
        if not past_the_queue or seen_s < _LOOK_SHARE * self.window_s:
            return False
        pace = self._pace()
        return pace is None or abs(pace - 1) < _OTHER_PACE or seen_s >= self.window_s

    @property
    def _last_known(self) -> int:
        """The number of the last timed step of the first epoch."""
        return max(self._first_epoch(), default=0)

    def _first_epoch(self) -> dict[int, float]:
        """Seconds of each step of the first epoch by its number, without the very first step."""
        stamps = self.stamps
        return {
            stamps.step[i]: stamps.done_s[i] - stamps.done_s[i - 1]
            for i in range(1, len(stamps.epoch))
            if stamps.epoch[i] == stamps.epoch[i - 1] == 1
        }

    def _pace(self) -> float | None:
        """Time of the second epoch's steps, as a ratio to the first epoch's steps of equal numbers.

        Only steps after the queued batches count: those that were made ahead are fast in both.
        """
        first, stamps = self._first_epoch(), self.stamps
        ours = {
            stamps.step[i]: stamps.done_s[i] - stamps.done_s[i - 1]
            for i in range(self.first_stamp + 1, len(stamps.step))
        }
        places = [p for p in ours if p in first and p > self.warmup_steps]
        before_s = sum(first[p] for p in places)
        return sum(ours[p] for p in places) / before_s if before_s > 0 else None
