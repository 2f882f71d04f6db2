"""Counts what a script does besides its steps: validation batches and checkpoints of an epoch.

Events within an epoch recur in it; events after its last step happen once. Which of the two it was
is known only when the loop continues, or does not.
"""

from __future__ import annotations


class BesideCount:
    """The number of events per epoch, from those seen in the first epoch and right after it."""

    def __init__(self) -> None:
        #: events within the epoch, by the number of steps made before them
        self._inside: dict[int, int] = {}
        self._waiting = self._between = 0

    def add(self, count: int = 1) -> None:
        """Count events that have just happened."""
        self._waiting += count

    def epoch_goes_on(self, step: int) -> None:
        """The loop asks for another batch of its epoch, after `step` steps."""
        if self._waiting:
            self._inside[step] = self._inside.get(step, 0) + self._waiting
            self._waiting = 0

    def next_epoch_begins(self) -> None:
        """Events since the last step came between two epochs."""
        self._between, self._waiting = self._between + self._waiting, 0

    def of_an_epoch(self, step: int, *, in_epoch: bool, whole: int | None) -> int:
        """The number of events of a whole epoch, including those after it.

        Args:
            step: steps of the epoch seen so far.
            in_epoch: whether the epoch goes on.
            whole: steps of the whole epoch; None if unknown.
        """
        inside = dict(self._inside)
        if in_epoch and self._waiting:
            inside[step] = inside.get(step, 0) + self._waiting
        between = self._between + (0 if in_epoch else self._waiting)
        seen = sum(inside.values())
        if not seen or whole is None or whole <= step:
            return seen + between
        if len(inside) == 1:
            return max(1, round(seen * whole / step)) + between
        # events come every so many steps, so those after the last steps are still to come
        apart = (max(inside) - min(inside)) / (len(inside) - 1)
        return round(seen / len(inside) * (whole // apart)) + between
