"""Finds the pattern of a training loop in its deliveries, backward passes and optimizer steps.

A step lasts from one batch of the training loader to the next. The order of events shows how many
batches belong to one optimizer step (gradient accumulation), and how many batches the loop takes
ahead.
"""

from __future__ import annotations

from collections import deque

#: After so many optimizer steps, the number of batches between them is accepted.
ENOUGH_GAPS = 3
#: After so many backward passes, a loop without an optimizer step has none.
ENOUGH_BACKWARDS = 4


class Pattern:
    """Counts the events of the training loop, and finds their regular pattern."""

    def __init__(self) -> None:
        #: batches that the loop has had; who delivers them counts them
        self.batches = self.backwards = self.steps = 0
        self.ahead: int | None = None
        self._gaps: deque[int] = deque(maxlen=8)
        self._batches_at_step: int | None = None
        self._backwards_at_step = 0

    def backward(self) -> None:
        """A backward pass begins."""
        if self.ahead is None:
            self.ahead = max(0, self.batches - 1)
        self.backwards += 1

    def stepped(self) -> None:
        """An optimizer has made its step."""
        self.steps += 1
        if self._batches_at_step is not None and self.batches > self._batches_at_step:
            self._gaps.append(self.batches - self._batches_at_step)
        self._batches_at_step = self.batches

    @property
    def is_known(self) -> bool:
        """Whether enough was seen to trust `group`."""
        if self.steps == 0:
            return self.backwards >= ENOUGH_BACKWARDS
        return len(self._gaps) >= ENOUGH_GAPS and self._agreed() is not None

    @property
    def group(self) -> int:
        """Batches per optimizer step; 1 if several steps use one batch."""
        agreed = self._agreed()
        if agreed is not None:
            return agreed
        return max(1, self._gaps[-1]) if self._gaps else 1

    def _agreed(self) -> int | None:
        """The commonest of the latest gaps: a step that a scaler skips makes one longer."""
        newest = list(self._gaps)[-5:]
        if not newest:
            return None
        common = max(sorted(set(newest)), key=newest.count)
        return common if newest.count(common) * 2 > len(newest) else None

    @property
    def steps_per_batch(self) -> float | None:
        """Optimizer steps per batch; None without any."""
        trained = self.batches - (self.ahead or 0)
        return self.steps / trained if self.steps and trained > 0 else None
