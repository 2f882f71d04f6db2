"""Shows the stages of a data preparation on a terminal or in a log."""

from __future__ import annotations

import time

from rich.console import Console
from rich.text import Text

from ctrkit.core.units import format_count, format_duration, format_percent, format_significant
from ctrkit.ctr.data.stage_progress import StageProgress, Watcher
from ctrkit.report.live import Clock, Display

_LOG_EVERY_S = 60.0


class StageDisplay(Display, Watcher):
    """Shows a line per finished stage.

    The running one is redrawn on a terminal, else shown rarely.
    """

    def __init__(
        self,
        *,
        quiet: bool = False,
        console: Console | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        super().__init__(quiet=quiet, console=console, clock=clock)
        self._progress: StageProgress | None = None
        self._said_s = 0.0

    def note(self, text: str) -> None:
        self.message(text)

    def stage(self, progress: StageProgress) -> None:
        if progress.state != "running":
            self._progress = None
            self._said_s = 0.0
            self._redraw(now=True)
            self.message(ended_line(progress))
            return
        self._progress = progress
        if self._live is not None:
            self._redraw()
        elif progress.elapsed_s - self._said_s >= _LOG_EVERY_S:
            self._said_s = progress.elapsed_s
            self.message(running_line(progress))

    def _renderable(self) -> Text:
        line = running_line(self._progress) if self._progress else ""
        return Text(line, no_wrap=True, overflow="ellipsis")


def running_line(progress: StageProgress) -> str:
    """`reading a.csv: 41%, 4,100,000 rows at 1.24 M/s, 17 s left`."""
    parts = [f"{format_percent(progress.share)}"] if progress.share else []
    parts += _rows(progress)
    if progress.remaining_s is None:
        parts.append(format_duration(progress.elapsed_s))
    else:
        parts.append(f"{format_duration(progress.remaining_s)} left")
    return f"{progress.name}: {', '.join(parts)}"


def ended_line(progress: StageProgress) -> str:
    """`reading a.csv: 10,000,000 rows at 1.24 M/s, 8.1 s`."""
    parts = [*_rows(progress), format_duration(progress.elapsed_s)]
    before = "finished before: " if progress.state == "skipped" else ""
    return f"{progress.name}: {before}{', '.join(parts)}"


def _rows(progress: StageProgress) -> list[str]:
    pace = progress.rows_per_s
    return [] if pace is None else [f"{format_count(progress.rows)} rows at {_pace(pace)}"]


def _pace(rows_per_s: float) -> str:
    for unit, factor in (("M", 1e6), ("k", 1e3)):
        if rows_per_s >= factor:
            return f"{format_significant(rows_per_s / factor)} {unit}/s"
    return f"{rows_per_s:.0f} /s"
