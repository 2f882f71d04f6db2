"""Shows the epochs of a training run as it writes them."""

from __future__ import annotations

import time
from pathlib import Path

from ctrkit.core.epochs import read_epochs
from ctrkit.core.units import format_duration
from ctrkit.report.epoch_length import LengthNotice
from ctrkit.report.live_train import TrainDisplay
from ctrkit.report.silence import SilenceNotice
from ctrkit.supervise.stop import GRACE_S, StopRequest
from ctrkit.supervise.watching import Tick

_LOOK_AT_EPOCHS_S = 0.5


class EpochWatch:
    """Notices new rows of `epochs.csv` and hands ticks on to the display."""

    def __init__(
        self,
        path: Path,
        display: TrainDisplay,
        skip: int,
        stop: StopRequest | None = None,
        grace_s: float = GRACE_S,
    ) -> None:
        self.path, self.display, self.shown = path, display, skip
        self.stop, self.told = stop or StopRequest(), False
        self.looked_s, self.grace_s = 0.0, grace_s
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
        """Show the rows that are new."""
        self.looked_s = time.monotonic()
        rows = read_epochs(self.path)
        for row in rows[self.shown :]:
            self.display.epoch_done(row)
        self.shown = len(rows)  # fewer than before where an older checkpoint was gone on from
