"""Warns once per epoch that its loader's `len()` was wrong."""

from __future__ import annotations

from ctrkit.core.progress import Progress
from ctrkit.core.units import format_count


class LengthNotice:
    """Turns readings of a run's progress into at most one line for each epoch."""

    def __init__(self) -> None:
        self._epoch = self._claimed = 0

    def __call__(self, progress: Progress | None) -> str | None:
        """The line, if the loader continues beyond its length, or ended at another one."""
        if progress is None or not progress.epoch:
            return None
        epoch, claimed = self._epoch, self._claimed
        self._epoch, self._claimed = progress.epoch, progress.steps
        if progress.epoch == epoch and claimed and not progress.steps:
            return (
                f"the loader continues beyond its length of {format_count(claimed)} batches: "
                f"ctrkit no longer knows when the epoch ends"
            )
        if progress.epoch == epoch + 1 and claimed and progress.steps not in (0, claimed):
            return (
                f"epoch {epoch} had {format_count(progress.steps)} batches, though the loader's "
                f"length is {format_count(claimed)}: from now on what was counted is believed"
            )
        return None
