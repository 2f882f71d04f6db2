"""The live display of a script's real run: the terminal's title, and a line now and then.

The terminal belongs to the script, so nothing is drawn over its output.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from ctrkit.core.progress import Progress, Stage
from ctrkit.core.units import format_count
from ctrkit.report.ledger_view import ExpectedEnd
from ctrkit.report.live_train import speed_of
from ctrkit.report.words import clean, percent

_TITLE_S = 1.0
_WINDOW_S = 60.0


class Screen(Protocol):
    """Where lines and the title are shown."""

    def say(self, line: str) -> None: ...

    def title(self, words: str) -> None: ...


class ScriptDisplay:
    """Prints our lines, and sets a title with position, data wait and expected end.

    Args:
        quiet: show nothing.
        clock: returns seconds, monotonic.
    """

    def __init__(self, *, quiet: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._quiet, self._clock = quiet, clock
        self._screen: Screen | None = None
        self._shown, self._titled_s = "", -_TITLE_S
        self._readings: deque[Progress] = deque()
        self._end_words = ""
        #: words on ranks in the title
        self.ranks_words = ""
        #: number of epochs of the run, if known
        self.epochs: int | None = None

    def use(self, screen: Screen | None) -> None:
        """Show everything on this screen from now on."""
        self._screen, self._shown = screen, ""

    def message(self, text: str) -> None:
        """A line that stays."""
        if not self._quiet and self._screen is not None:
            self._screen.say(f"ctrkit: {clean(text, 2000)}")

    def expect(self, end: ExpectedEnd) -> None:
        """When the run is expected to end, from what keeps its time."""
        self._end_words = end.words()

    def spend(self, words: str) -> None:
        """Ignored: a title has no room for where the time goes."""

    def tick(self, progress: Progress | None) -> None:
        """The newest reading of the progress file; call it often, it writes seldom."""
        if progress is None or self._quiet or self._screen is None:
            return
        self._remember(progress)
        if self._clock() - self._titled_s < _TITLE_S:
            return
        self._titled_s = self._clock()
        words = self.title_words(progress)
        if words != self._shown:
            self._shown = words
            self._screen.title(words)

    def title_words(self, progress: Progress) -> str:
        """`epoch 2/10 · step 340/512 · data wait 4.2 % · run left 2 h 05 min, until 17:30`."""
        of = f"/{self.epochs}" if self.epochs else ""
        place = f"epoch {progress.epoch}{of}" if progress.epoch else "start"
        words = [place, progress.stage.label]
        if progress.stage is Stage.STEP:
            steps = f"/{format_count(progress.steps)}" if progress.steps else ""
            words[-1] = f"step {format_count(progress.step)}{steps}"
        speed = speed_of(self._readings)
        if speed is not None:
            words.append(f"data wait {percent(speed.wait_share)}")
        if self.ranks_words:
            words.append(self.ranks_words)
        if self._end_words:
            words.append(self._end_words)
        return " · ".join(words)

    def _remember(self, progress: Progress) -> None:
        last = self._readings[-1] if self._readings else None
        if last is not None and last.writes == progress.writes:
            return
        if last is not None and (last.epoch, last.pid) != (progress.epoch, progress.pid):
            self._readings.clear()
        self._readings.append(progress)
        while (
            len(self._readings) > 2 and progress.written_s - self._readings[1].written_s > _WINDOW_S
        ):
            self._readings.popleft()
