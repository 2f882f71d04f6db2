"""The live display of a real run; a line now and then where there is no terminal."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table as RichTable
from rich.text import Text

from ctrkit.core.plugins import Plugin
from ctrkit.core.progress import Progress, Stage
from ctrkit.core.records import Recommendation
from ctrkit.core.run_time import measured_time, projected_epoch, projected_time
from ctrkit.core.units import format_count, format_duration
from ctrkit.report.ledger_view import ExpectedEnd
from ctrkit.report.live import Clock, Display
from ctrkit.report.words import clean, deviation_words, percent, projection_words, rate_words

_LINE_S = 10.0
_LATER_LINE_S = 60.0  # after two minutes, so that a run of a day does not fill its log
_LATER_S = 120.0
_SILENT_S = 15.0
_SPEED_WINDOW_S = 60.0
_BAR_WIDTH = 40


@dataclass(frozen=True)
class Speed:
    """The loop's speed over the last readings: per second, and the share of data wait."""

    steps_per_s: float
    rows_per_s: float
    wait_share: float


def speed_of(readings: Sequence[Progress]) -> Speed | None:
    """The speed between the first and the last reading; None without a step between them."""
    if len(readings) < 2:
        return None
    first, last = readings[0], readings[-1]
    elapsed_s = last.written_s - first.written_s
    if elapsed_s <= 0 or last.step <= first.step:
        return None
    return Speed(
        steps_per_s=(last.step - first.step) / elapsed_s,
        rows_per_s=(last.rows - first.rows) / elapsed_s,
        wait_share=min(1.0, max(0.0, (last.wait_s - first.wait_s) / elapsed_s)),
    )


def epoch_line(row: Mapping[str, Any], projection: Recommendation | None, plugin: Plugin) -> str:
    """`epoch 1: 31 min 02 s, projected 29 min 40 s (28 .. 31 min): +4.6 %`, then its metrics."""
    took_s = row.get("wall_s")
    words = f"epoch {row.get('epoch')}: {format_duration(took_s)}"
    if projection is not None and took_s is not None:
        projected_s, low_s, high_s = projected_epoch(projection, row.get("epoch"))
        if projected_s is not None:
            words += f", projected {projection_words(projected_s, low_s, high_s)}"
            words += f": {deviation_words(took_s, projected_s)}"
    metrics = [
        f"{clean(metric.live, 40)} {value if isinstance(value, str) else metric.text(value)}"
        for metric in plugin.metrics_of(row)
        if metric.live and (value := row.get(metric.name)) is not None
    ]
    return words + (f"; {', '.join(metrics)}" if metrics else "")


class TrainDisplay(Display):
    """Shows the position, the speed and the expected end of a real run.

    Args:
        epochs: number of epochs of the run.
        plugin: knows the run's metrics.
        projection: the run's projection, used until there are measured times.
        quiet: show nothing.
        console: where to write; stderr if None.
        clock: returns seconds, monotonic.
    """

    def __init__(
        self,
        *,
        epochs: int | None = None,
        plugin: Plugin | None = None,
        projection: Recommendation | None = None,
        quiet: bool = False,
        console: Console | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        super().__init__(quiet=quiet, console=console, clock=clock)
        self._epochs = epochs
        self._plugin = plugin or Plugin()
        self._projection = projection
        self._readings: deque[Progress] = deque()
        self._epoch_times_s: list[float] = []
        self._speed: Speed | None = None
        self._changed_s = self._began_s
        self._lined_s = -float("inf")
        self._line = ""
        self._end: ExpectedEnd | None = None
        self._spent_words = ""

    def expect(self, end: ExpectedEnd) -> None:
        """When the run is expected to end, from what keeps its time."""
        self._end = end

    def spend(self, words: str) -> None:
        """Show where the time goes now, from the ledger."""
        self._spent_words = words

    def tick(self, progress: Progress | None) -> None:
        """The newest reading of the progress file; call it often, it writes seldom."""
        if progress is None:
            return
        self._remember(progress)
        if self._live is not None:
            self._redraw()
        elif not self._quiet and self._clock() - self._lined_s >= self._line_every_s():
            line = " · ".join(
                [*self._place_words(progress), *self._speed_words(progress),
                 *self._time_words(progress)]
            )  # fmt: skip
            if line != self._line:  # the supervisor reports a silent loop
                self._lined_s, self._line = self._clock(), line
                self.message(line)

    def _line_every_s(self) -> float:
        return _LINE_S if self._clock() - self._began_s < _LATER_S else _LATER_LINE_S

    def epoch_done(self, row: Mapping[str, Any]) -> None:
        """Show a new row of `epochs.csv`."""
        if row.get("wall_s") is not None:
            self._epoch_times_s.append(float(row["wall_s"]))
        self.message(epoch_line(row, self._projection, self._plugin))
        self._redraw(now=True)

    def restarted(self, line: str) -> None:
        """Show that the run was ended and continues in a new process."""
        self._readings.clear()
        self._speed, self._changed_s = None, self._clock()
        self._line, self._lined_s = "", -float("inf")
        self.message(line)
        self._redraw(now=True)

    def _remember(self, progress: Progress) -> None:
        last = self._readings[-1] if self._readings else None
        if last is not None and last.writes == progress.writes and last.pid == progress.pid:
            return
        self._changed_s = self._clock()
        if last is not None and (
            (last.pid, last.epoch, last.stage) != (progress.pid, progress.epoch, progress.stage)
            or progress.step < last.step
        ):
            self._readings.clear()
            self._speed = None
        self._readings.append(progress)
        while (
            len(self._readings) > 2
            and progress.written_s - self._readings[1].written_s > _SPEED_WINDOW_S
        ):
            self._readings.popleft()
        self._speed = speed_of(self._readings) or self._speed

    def _place_words(self, progress: Progress) -> list[str]:
        of = f"/{self._epochs}" if self._epochs else ""
        words = [f"epoch {progress.epoch}{of}" if progress.epoch else "start", progress.stage.label]
        if progress.stage in (Stage.STEP, Stage.VALIDATION):
            steps = f"/{format_count(progress.steps)}" if progress.steps else ""
            words[-1] += f" {format_count(progress.step)}{steps}"
        return words

    def _speed_words(self, progress: Progress) -> list[str]:
        words = []
        if self._speed is not None:
            if self._speed.rows_per_s > 0:
                words.append(f"{rate_words(self._speed.rows_per_s)} rows/s")
            if not self._spent_words:
                words.append(f"data wait {percent(self._speed.wait_share)}")
        if progress.loss == progress.loss:
            words.append(f"loss {progress.loss:.4f}")
        if self._spent_words:
            words.append(self._spent_words)
        return words

    def _time_words(self, progress: Progress) -> list[str]:
        words = []
        left_s = self._step_seconds_left(progress)
        if left_s is not None:
            left_s += self._end.ending_s if self._end is not None else 0.0
            words.append(f"epoch left {format_duration(left_s)}")
        run_left_s = self._run_seconds_left(progress, left_s)
        if self._end is not None:
            words.append(self._end.words(left_s or 0.0))
        elif run_left_s is not None:
            words.append(f"run left {format_duration(run_left_s)}")
        return words

    def _step_seconds_left(self, progress: Progress) -> float | None:
        if progress.stage is not Stage.STEP or self._speed is None or not progress.steps:
            return None
        return max(0, progress.steps - progress.step) / self._speed.steps_per_s

    def _run_seconds_left(self, progress: Progress, left_s: float | None) -> float | None:
        """Whole epochs at their mean or projected time, plus the rest of the current one."""
        time = measured_time(self._epoch_times_s) or projected_time(self._projection)
        if self._epochs is None or time is None or progress.stage is not Stage.STEP:
            return None
        if not progress.steps:
            return None
        done = progress.epoch - 1 + min(1.0, progress.step / progress.steps)
        this_s = time.epochs_s(progress.epoch, begin=done)
        return max(this_s, left_s or 0.0) + time.epochs_s(self._epochs, begin=progress.epoch)

    def _renderable(self) -> RenderableType:
        if not self._readings:
            return Text("starting")
        progress = self._readings[-1]
        place, speed = self._place_words(progress), self._speed_words(progress)
        silent_s = self._clock() - self._changed_s
        if silent_s > _SILENT_S:
            speed = [f"no progress for {format_duration(silent_s)}"]
        grid = RichTable.grid(padding=(0, 2, 0, 0))
        counts = progress.stage in (Stage.STEP, Stage.VALIDATION) and progress.steps
        bar = ProgressBar(
            total=progress.steps if counts else 1,
            completed=min(progress.step, progress.steps) if counts else 0,
            width=max(10, min(_BAR_WIDTH, self._console.width - 40)),
        )
        grid.add_row(Text(place[0], style="bold"), bar, Text(place[1]))
        lines = (" · ".join(speed), " · ".join(self._time_words(progress)))
        return Group(grid, *(Text(line, style="dim") for line in lines if line))
