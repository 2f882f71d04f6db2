"""Counts what a script does beside its steps: validation batches and checkpoints of an epoch.

What happens while an epoch goes on happens again and again in it; what happens once it is over
happens once. Which of the two it was is known only when the loop goes on, or does not.
"""

from __future__ import annotations


class BesideCount:
    """How many there are in an epoch, from those seen in the first one and right after it."""

    def __init__(self) -> None:
        #: how many there were at once inside the epoch, by the steps made before them
        self._inside: dict[int, int] = {}
        self._waiting = self._between = 0

    def add(self, count: int = 1) -> None:
        """So many have just happened."""
        self._waiting += count

    def epoch_goes_on(self, step: int) -> None:
        """The loop asks for another batch of its epoch, of which it has made so many steps."""
        if self._waiting:
            self._inside[step] = self._inside.get(step, 0) + self._waiting
            self._waiting = 0

    def next_epoch_begins(self) -> None:
        """What has happened since the last step came between two epochs."""
        self._between, self._waiting = self._between + self._waiting, 0

    def of_an_epoch(self, step: int, *, in_epoch: bool, whole: int | None) -> int:
        """How many a whole epoch has, together with what follows it.

        Args:
            step: steps that were seen of the epoch.
            in_epoch: whether it goes on.
            whole: steps of the whole epoch, None where they are not known.
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
        # they come every so many steps: what the steps after the last one lead to is still to come
        apart = (max(inside) - min(inside)) / (len(inside) - 1)
        return round(seen / len(inside) * (whole // apart)) + between
