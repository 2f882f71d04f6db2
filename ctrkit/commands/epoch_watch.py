"""Shows the epochs of a real run as the child writes them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from ctrkit.core.config import Watch
from ctrkit.core.epochs import EpochRow, odd_values, read_epochs
from ctrkit.core.units import format_duration
from ctrkit.report.epoch_figures import live_notes
from ctrkit.report.length_notice import LengthNotice
from ctrkit.report.live_train import TrainDisplay
from ctrkit.report.silence import SilenceNotice
from ctrkit.supervise.stop import GRACE_S, StopRequest
from ctrkit.supervise.watching import Tick

_LOOK_AT_EPOCHS_S = 0.5


class EpochWatch:
    """Notices new rows of `epochs.csv`, and passes ticks on to the display."""

    def __init__(
        self,
        path: Path,
        display: TrainDisplay,
        skip: int,
        stop: StopRequest | None = None,
        grace_s: float = GRACE_S,
        watched: Watch | None = None,
    ) -> None:
        self.path, self.display, self.shown = path, display, skip
        self.stop, self.told = stop or StopRequest(), False
        self.looked_s, self.grace_s = 0.0, grace_s
        self.watched, self.noted = watched, set[str]()
        self.silence, self.length = SilenceNotice(), LengthNotice()

    def __call__(self, tick: Tick) -> None:
        self.display.tick(tick.progress)
        if self.stop.finish and not self.told:
            self.told = True
            self.display.message(self._stop_words())
        for line in (self.silence(tick), self.length(tick.progress)):
            if line:
                self.display.message(line)
        if time.monotonic() - self.looked_s >= _LOOK_AT_EPOCHS_S:
            self.look()

    def _stop_words(self) -> str:
        if self.stop.grace_since_s is None:
            return "finishing the step and saving; Ctrl-C again: stop now"
        within = format_duration(self.grace_s)
        return f"{self.stop.by}: finishing the step and saving, within {within} (--grace)"

    def look(self) -> None:
        """Show new rows."""
        self.looked_s = time.monotonic()
        rows = read_epochs(self.path)
        if len(rows) > self.shown:
            self._show(rows)
        self.shown = len(rows)  # fewer than before if the run continued from an older checkpoint

    def _show(self, rows: Sequence[EpochRow]) -> None:
        new = rows[self.shown :]
        odd = [one for one in odd_values(self.path) if one.epoch in {row["epoch"] for row in new}]
        for row in new:
            texts = {one.column: one.text[:40] for one in odd if one.epoch == row["epoch"]}
            self.display.epoch_done({**row, **texts})
        for note in live_notes(rows, odd, self.watched):
            if note not in self.noted:
                self.noted.add(note)
                self.display.message(note)
