"""Shows the epochs of a training run as it writes them."""

from __future__ import annotations

import time
from pathlib import Path

from ctrkit.core.epochs import read_epochs
from ctrkit.report.live_train import TrainDisplay
from ctrkit.report.silence import SilenceNotice
from ctrkit.supervise.stop import StopRequest
from ctrkit.supervise.supervisor import Tick

_LOOK_AT_EPOCHS_S = 0.5


class EpochWatch:
    """Notices new rows of `epochs.csv` and hands ticks on to the display."""

    def __init__(
        self, path: Path, display: TrainDisplay, skip: int, stop: StopRequest | None = None
    ) -> None:
        self.path, self.display, self.shown = path, display, skip
        self.stop, self.told = stop or StopRequest(), False
        self.looked_s = 0.0
        self.silence = SilenceNotice()

    def __call__(self, tick: Tick) -> None:
        self.display.tick(tick.progress)
        if self.stop.finish and not self.told:
            self.told = True
            self.display.message("finishing the step and saving; Ctrl-C again: stop now")
        if line := self.silence(tick):
            self.display.message(line)
        if time.monotonic() - self.looked_s >= _LOOK_AT_EPOCHS_S:
            self.look()

    def look(self) -> None:
        """Show the rows that are new."""
        self.looked_s = time.monotonic()
        rows = read_epochs(self.path)
        for row in rows[self.shown :]:
            self.display.epoch_done(row)
        self.shown = len(rows)  # fewer than before where an older checkpoint was gone on from
