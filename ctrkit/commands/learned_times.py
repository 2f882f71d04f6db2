"""Keeps how long the stages of a real run took, over restarts and sessions, for its time limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ctrkit.core.progress import Stage
from ctrkit.core.runs import RunFolder
from ctrkit.core.units import format_duration
from ctrkit.supervise.supervisor import Outcome
from ctrkit.supervise.time_limits import StageTimes

_BY_LABEL = {stage.label: stage for stage in Stage}


def stage_times(seconds: Mapping[str, float], *, is_run: bool = True) -> StageTimes:
    """Stage times from seconds by stage label; unknown labels are ignored."""
    known = {_BY_LABEL[label]: value for label, value in seconds.items() if label in _BY_LABEL}
    return StageTimes(longest_s=known, is_run=is_run)


def by_label(times: StageTimes) -> dict[str, float]:
    """The longest silences by stage label."""
    return {stage.label: round(seconds, 3) for stage, seconds in times.longest_s.items()}


class LearnedTimes:
    """The stage times of one run, from its probe and from each of its launches.

    Args:
        run: keeps the longest silences in its `run.json`.
    """

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        projection = run.info.projection
        self.times = stage_times(projection.stage_s if projection is not None else {})
        self.times = self.times.seen(stage_times(run.info.stage_s).longest_s)

    def ended(self, outcome: Outcome) -> None:
        """Add a launch that has ended."""
        self.times = self.times.seen(outcome.longest_s)
        self._run.update(stage_s=by_label(self.times))

    def raised(self, outcome: Outcome) -> str:
        """Raise the limit of the judged stage if the run had made progress before; returns words.

        The next launch may be as slow at the same place, and be healthy.
        """
        if outcome.verdict not in ("deadlock", "stalled"):
            return ""
        progress = outcome.progress
        got_on = progress is not None and (progress.epoch > 1 or progress.step > 0)
        if not got_on and not (self._run.path / "checkpoints" / "last.pt").is_file():
            return ""
        stage = Stage.IMPORT if progress is None else progress.stage
        times = self.times.after_verdict(stage, outcome.silent_s)
        self.times = replace(times, is_run=True)
        return (
            f"in case it was only slow, the limit of stage '{stage.label}' is raised to "
            f"{format_duration(times.raised_s[stage])}"
        )
