"""How much of a second epoch is measured: more where its pace may differ from the first one's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

#: The second epoch is looked into where that takes this share of the throughput window, ...
_LOOK_SHARE = 0.1
#: ... with so many steps beyond the batches that were queued ahead; a change of the pace by this
#: much is measured for as long as the first epoch was.
_LOOK_STEPS, _OTHER_PACE = 6, 0.2


@dataclass(frozen=True)
class SecondEpoch:
    """The second epoch beside the first, step by step.

    Args:
        stamps: of both; they grow with each step.
        first_stamp: the place of the second epoch's first one.
        warmup_steps: of the first epoch: what was made ahead was fast in both.
        window_s: how long the throughput window took.
        window_steps: how many steps that one had.
    """

    stamps: Any
    first_stamp: int
    warmup_steps: int
    window_s: float
    window_steps: int

    def is_worth_it(self, step: int) -> bool:
        """Whether more steps are to follow those of the boundary: they are cheap, or they differ.

        `step` is the newest one.
        """
        if step >= self._last_known:
            return False
        step_s = self.window_s / self.window_steps
        if (self.warmup_steps + _LOOK_STEPS) * step_s <= 2 * _LOOK_SHARE * self.window_s:
            return True
        pace = self._pace()
        return pace is not None and not 0.5 < pace < 2

    def is_enough(self, step: int, seen_s: float) -> bool:
        """Whether its pace is clear after `step` steps, of which `seen_s` came after the boundary.

        It is also enough where the first epoch has no more steps to compare with.
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
        """The last step of the first epoch that was timed."""
        return max(self._first_epoch(), default=0)

    def _first_epoch(self) -> dict[int, float]:
        """Seconds of each step of the first epoch after its first one, by its number."""
        stamps = self.stamps
        return {
            stamps.step[i]: stamps.done_s[i] - stamps.done_s[i - 1]
            for i in range(1, len(stamps.epoch))
            if stamps.epoch[i] == stamps.epoch[i - 1] == 1
        }

    def _pace(self) -> float | None:
        """How long the second epoch's steps took as a share of those at equal places of the first.

        Of steps beyond the queue only: what was made ahead was fast in both.
        """
        first, stamps = self._first_epoch(), self.stamps
        ours = {
            stamps.step[i]: stamps.done_s[i] - stamps.done_s[i - 1]
            for i in range(self.first_stamp + 1, len(stamps.step))
        }
        places = [p for p in ours if p in first and p > self.warmup_steps]
        before_s = sum(first[p] for p in places)
        return sum(ours[p] for p in places) / before_s if before_s > 0 else None
