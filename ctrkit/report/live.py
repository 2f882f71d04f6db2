"""What a terminal shows while a probe or a real run goes on; plain lines where there is none."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table as RichTable
from rich.text import Text

from ctrkit.config import Cell
from ctrkit.progress import Progress, Stage
from ctrkit.records import Recommendation, TrialRecord
from ctrkit.report.blocks import Table
from ctrkit.report.matrix import cell_results, matrix_table
from ctrkit.report.terminal import table_renderable
from ctrkit.report.words import (
    clean,
    deviation_words,
    percent,
    range_words,
    rate_words,
    step_words,
)
from ctrkit.units import format_count, format_duration

Clock = Callable[[], float]

_REDRAW_S = 0.2
_LINE_S = 10.0
_LATER_LINE_S = 60.0  # after two minutes: a run of a day should not fill its log with lines
_LATER_S = 120.0
_SILENT_S = 15.0
_SPEED_WINDOW_S = 60.0
_BAR_WIDTH = 40


def stderr_console() -> Console:
    """Where the displays write; rich honours NO_COLOR, FORCE_COLOR and TERM.

    FORCE_COLOR colours a log file's lines too, but must not make it a display that redraws.
    """
    return Console(
        stderr=True, highlight=False, emoji=False, markup=False,
        force_interactive=sys.stderr.isatty() and os.environ.get("TERM") != "dumb",
    )  # fmt: skip


class _Display:
    """Redraws at most every `_REDRAW_S` from the caller's own events: it has no thread."""

    def __init__(self, *, quiet: bool, console: Console | None, clock: Clock) -> None:
        self._console = console or stderr_console()
        self._quiet = quiet
        self._clock = clock
        self._began_s = clock()
        self._drawn_s = -float("inf")
        self._live: Live | None = None
        if self._console.is_interactive and not quiet:
            # stdout stays as it is: `--json` puts its document there
            self._live = Live(
                console=self._console, auto_refresh=False, transient=True, redirect_stdout=False
            )

    def __enter__(self) -> Self:
        self._began_s = self._clock()
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def message(self, text: str) -> None:
        """A line that stays."""
        if not self._quiet:
            self._console.print(Text(clean(text, 2000)), soft_wrap=self._live is None)

    def _redraw(self, *, now: bool = False) -> None:
        if self._live is None or (not now and self._clock() - self._drawn_s < _REDRAW_S):
            return
        self._drawn_s = self._clock()
        self._live.update(self._renderable(), refresh=True)

    def _renderable(self) -> RenderableType:
        raise NotImplementedError


class ProbeDisplay(_Display):
    """The matrix filling in, what runs now, the best so far and the budget left.

    Args:
        budget_s: the probe's budget; None is without one.
        cells: the cells of the matrix, to show how many are still to come.
        quiet: show nothing.
        console: where to write; stderr if None.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        budget_s: float | None = None,
        cells: Sequence[Cell] = (),
        quiet: bool = False,
        console: Console | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        super().__init__(quiet=quiet, console=console, clock=clock)
        self._budget_s = budget_s
        self._cells = len(cells)
        self._records: list[TrialRecord] = []
        self._running = ""
        self._started_s = self._began_s
        self._progress: Progress | None = None

    def started(self, what: str | Cell, kind: str = "") -> None:
        """A trial of this cell begins, or something else that takes a while."""
        name = what.cell_id if isinstance(what, Cell) else what
        self._running = clean(f"{name} ({kind_words(kind)})" if kind else name, 100)
        self._started_s, self._progress = self._clock(), None
        self._redraw(now=True)

    def tick(self, progress: Progress | None = None) -> None:
        """The running trial's newest progress; call it often, it redraws seldom."""
        self._progress = progress
        self._redraw()

    def record(self, record: TrialRecord) -> None:
        """A trial is over."""
        self._records.append(record)
        self._running = ""
        if self._live is not None:
            self._redraw(now=True)
        elif not self._quiet and record.kind != "predicted":
            self.message(f"[{self._clock() - self._began_s:.0f} s] {trial_line(record)}")

    def _renderable(self) -> RenderableType:
        width, height = self._console.size
        parts: list[RenderableType] = []
        if self._records:
            table = matrix_table(self._records)
            parts.append(table_renderable(_shortened(table, height - 6), width))
        parts.append(Text(self._now_line(), no_wrap=True, overflow="ellipsis"))
        parts.append(Text(self._summary_line(), style="dim", no_wrap=True, overflow="ellipsis"))
        return Group(*parts)

    def _now_line(self) -> str:
        if not self._running:
            return "…"
        words = f"now {self._running}: "
        if self._progress is None:
            words += "starting"
        else:
            words += self._progress.stage.label
            if self._progress.stage in (Stage.STEP, Stage.VALIDATION):
                words += f" {self._progress.step}"
        return f"{words}, {format_duration(self._clock() - self._started_s)}"

    def _summary_line(self) -> str:
        parts = []
        if self._budget_s is not None:
            left_s = max(0.0, self._budget_s - (self._clock() - self._began_s))
            parts.append(f"budget left {left_s:.0f} s")
        results = cell_results(self._records)
        done = sum(r.verdict != "predicted" for r in results)
        if self._cells:
            parts.append(f"{done} of {self._cells} cells run")
        best = next((r.record for r in results if r.verdict == "ok"), None)
        if best is not None:
            whole = best.projected_total_s
            words = "" if whole is None else f"whole run {format_duration(whole)}, "
            parts.append(f"best: {words}{clean(best.cell_id, 60)}")
        return " · ".join(parts)


def _shortened(table: Table, most_rows: int) -> Table:
    """The first rows, the best ones: a display taller than the terminal cannot be redrawn."""
    most_rows = max(3, most_rows)
    if len(table.rows) <= most_rows:
        return table
    left_out = len(table.rows) - most_rows + 1
    rest = (f"+ {left_out}",) + ("",) * (len(table.columns) - 1)
    rows = (*table.rows[: most_rows - 1], rest)
    return Table(table.columns, rows, (*table.tones[: most_rows - 1], "dim"))


def kind_words(kind: str) -> str:
    """A trial's kind as people read it."""
    return {"full": "whole step", "compute": "computing alone", "loader": "loader alone"}.get(
        kind, kind
    )


def trial_line(record: TrialRecord) -> str:
    """A finished trial in a line."""
    head = f"{record.cell_id} ({kind_words(record.kind)}): {record.verdict}"
    if record.verdict != "ok":
        return clean(f"{head}. {record.reason}" if record.reason else head)
    parts = [head]
    if record.step_s is not None:
        parts.append(f"{step_words(record.step_s, record.step_s_low, record.step_s_high)} a step")
    if record.rows_per_s:
        parts.append(f"{rate_words(record.rows_per_s)} rows/s")
    if record.data_wait_share is not None:
        parts.append(f"data wait {percent(record.data_wait_share)}")
    if record.projected_total_s is not None:
        parts.append(f"whole run {format_duration(record.projected_total_s)}")
    return clean(", ".join(parts))


@dataclass(frozen=True)
class Speed:
    """How fast the loop is, over the last readings: per second, and the share of data wait."""

    steps_per_s: float
    rows_per_s: float
    wait_share: float


def speed_of(readings: Sequence[Progress]) -> Speed | None:
    """The speed between the first and the last reading, None where no step lies between them."""
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


def epoch_line(row: Mapping[str, Any], projection: Recommendation | None) -> str:
    """`epoch 1: 31 min 02 s, projected 29 min 40 s (28 .. 31 min): +4.6 %`, then its metrics."""
    took_s = row.get("wall_s")
    words = f"epoch {row.get('epoch')}: {format_duration(took_s)}"
    projected_s = projection.projected_epoch_s if projection else None
    if projection is not None and projected_s is not None and took_s is not None:
        low, high = projection.projected_epoch_s_low, projection.projected_epoch_s_high
        between = f" ({range_words(low, high)})" if low is not None and high is not None else ""
        words += f", projected {format_duration(projected_s)}{between}"
        words += f": {deviation_words(took_s, projected_s)}"
    metrics = [
        f"{name} {row[column]:.4f}"
        for column, name in (
            ("train_loss", "loss"), ("train_auc", "AUC"), ("val_loss", "validation loss"),
            ("val_auc", "validation AUC"),
        )
        if row.get(column) is not None
    ]  # fmt: skip
    return words + (f"; {', '.join(metrics)}" if metrics else "")


class TrainDisplay(_Display):
    """Where a real run is, how fast, and when it will end.

    Args:
        epochs: how many the run makes.
        projection: what it was started with; its times are used until there are measured ones.
        quiet: show nothing.
        console: where to write; stderr if None.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        epochs: int | None = None,
        projection: Recommendation | None = None,
        quiet: bool = False,
        console: Console | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        super().__init__(quiet=quiet, console=console, clock=clock)
        self._epochs = epochs
        self._projection = projection
        self._readings: deque[Progress] = deque()
        self._epoch_times_s: list[float] = []
        self._speed: Speed | None = None
        self._changed_s = self._began_s
        self._lined_s = -float("inf")
        self._line = ""
        self._end_words = ""

    def expect(self, words: str) -> None:
        """When the run is expected to end, from what keeps its time."""
        self._end_words = words

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
            if line != self._line:  # a silent loop is the supervisor's to report
                self._lined_s, self._line = self._clock(), line
                self.message(line)

    def _line_every_s(self) -> float:
        return _LINE_S if self._clock() - self._began_s < _LATER_S else _LATER_LINE_S

    def epoch_done(self, row: Mapping[str, Any]) -> None:
        """A new row of `epochs.csv`."""
        if row.get("wall_s") is not None:
            self._epoch_times_s.append(float(row["wall_s"]))
        self.message(epoch_line(row, self._projection))
        self._redraw(now=True)

    def restarted(self, line: str) -> None:
        """The run was ended and goes on in a new process."""
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
            words.append(f"data wait {percent(self._speed.wait_share)}")
        if progress.loss == progress.loss:
            words.append(f"loss {progress.loss:.4f}")
        return words

    def _time_words(self, progress: Progress) -> list[str]:
        words = []
        left_s = self._step_seconds_left(progress)
        if left_s is not None:
            words.append(f"epoch left {format_duration(left_s)}")
        run_left_s = self._run_seconds_left(progress, left_s)
        if self._end_words:
            words.append(self._end_words)
        elif run_left_s is not None:
            words.append(f"run left {format_duration(run_left_s)}")
        return words

    def _step_seconds_left(self, progress: Progress) -> float | None:
        if progress.stage is not Stage.STEP or self._speed is None or not progress.steps:
            return None
        return max(0, progress.steps - progress.step) / self._speed.steps_per_s

    def _run_seconds_left(self, progress: Progress, left_s: float | None) -> float | None:
        """Whole epochs at their mean time, else as projected, and the rest of this one."""
        epoch_s = self._projection.projected_epoch_s if self._projection else None
        if self._epoch_times_s:
            epoch_s = sum(self._epoch_times_s) / len(self._epoch_times_s)
        if self._epochs is None or epoch_s is None or progress.stage is not Stage.STEP:
            return None
        if not progress.steps:
            return None
        this_s = epoch_s * max(0.0, 1 - progress.step / progress.steps)
        if left_s is not None:
            this_s = max(this_s, left_s)
        return this_s + max(0, self._epochs - progress.epoch) * epoch_s

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
