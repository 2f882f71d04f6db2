"""Measures the pace of a session: the time of its steps, and of the ends of its epochs.

The end of an epoch is everything after its last step: validation, metrics and a checkpoint. A
single pace for both would be too fast in the first epoch, and too slow at each epoch's end.
"""

from __future__ import annotations

from ctrkit.core.progress import Progress, Stage
from ctrkit.core.run_time import BEGINNING, Place

#: Stages that show that an epoch's steps are over, if its length is unknown.
_AFTER_STEPS = (Stage.EPOCH_BOUNDARY, Stage.METRICS)


class EpochPace:
    """Adds up a session's productive seconds, separately for steps and for ends of epochs.

    Attributes:
        began: where the session began; None until that is known.
        done: how far it has got.
        stepping_s: seconds of steps, with checkpoints and validations between them.
        ending_s: seconds of epoch ends that were seen from their beginning.
        ends: number of those ends.
        into_end_s: seconds of the current end; 0 between steps.
    """

    def __init__(self) -> None:
        self.began: Place | None = None
        self.done = BEGINNING
        self.stepping_s = self.ending_s = self.into_end_s = 0.0
        self.ends = 0
        self._epoch, self._is_ending, self._is_seen_whole = 0, False, False
        self._productive_s = 0.0

    @property
    def mean_ending_s(self) -> float | None:
        """Mean seconds of an epoch's end; None until one was seen."""
        return self.ending_s / self.ends if self.ends else None

    def look(self, progress: Progress, productive_s: float, steps_of_launch: int) -> None:
        """Account for the time since the last call.

        Args:
            progress: the latest progress within an epoch.
            productive_s: productive seconds of the session so far.
            steps_of_launch: steps that the running child has done.
        """
        passed_s = max(0.0, productive_s - self._productive_s)
        self._productive_s = productive_s
        if self._is_ending:
            self.into_end_s += passed_s
        else:
            self.stepping_s += passed_s
        if progress.epoch != self._epoch:
            self._end_epoch()
        is_ending = self._ends(progress)
        if is_ending and not self._is_ending:
            self._is_seen_whole = self._epoch == progress.epoch
        self._epoch, self._is_ending = progress.epoch, is_ending
        self._move(progress, steps_of_launch)

    def lost(self) -> None:
        """The child has ended, and the current epoch end must be repeated."""
        self.into_end_s, self._is_ending, self._is_seen_whole = 0.0, False, False
        self._epoch = 0

    def _end_epoch(self) -> None:
        if self._is_ending and self._is_seen_whole:
            self.ending_s, self.ends = self.ending_s + self.into_end_s, self.ends + 1
        self.into_end_s, self._is_ending, self._is_seen_whole = 0.0, False, False

    def _ends(self, progress: Progress) -> bool:
        """Whether the steps of the epoch are over."""
        if progress.steps:
            return progress.step >= progress.steps
        was_ending = self._is_ending and progress.epoch == self._epoch
        return progress.stage in _AFTER_STEPS or (was_ending and progress.stage is not Stage.STEP)

    def _move(self, progress: Progress, steps_of_launch: int) -> None:
        over, fraction = float(progress.epoch - 1), 1.0 if self._is_ending else 0.0
        if progress.steps:
            fraction = min(1.0, progress.step / progress.steps)
        trained = over + fraction
        if self.began is None and (steps_of_launch or not progress.steps):
            steps = steps_of_launch / progress.steps if progress.steps else 0.0
            begin = max(0.0, trained - steps)
            self.began = Place(trained=begin, over=min(over, float(int(begin + 1e-9))))
        self.done = Place(trained=max(self.done.trained, trained), over=max(self.done.over, over))
