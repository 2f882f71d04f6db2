"""The live display of a probe; one line per trial where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.text import Text

from ctrkit.core.config import Cell
from ctrkit.core.progress import Progress, Stage
from ctrkit.core.records import AnswerSoFar, TrialRecord
from ctrkit.core.units import format_duration
from ctrkit.report.blocks import Table
from ctrkit.report.live import Clock, Display
from ctrkit.report.matrix_view import NOT_RUN, CellResult, cell_results, matrix_table
from ctrkit.report.terminal import table_renderable
from ctrkit.report.words import (
    clean,
    percent,
    projection_words,
    rate_words,
    sentence,
    step_words,
)

# Standings of a cell: mark, colour, name.
_OK, _FAILED, _PREDICTED = ("✓", "green", "ok"), ("✕", "red", "failed"), ("○", "dim", "predicted")
_NOT_RUN, _RUNNING = ("–", "dim", "not run"), ("▸", "bold", "running")
_WAITING = ("·", "dim", "to come")
# lines other than the table's rows: its head, the marks, the current trial, the best, the budget
_LINES_BELOW = 8


class ProbeDisplay(Display):
    """The matrix as it fills, the current trial, the best so far, and the remaining budget.

    Args:
        budget_s: the probe's budget; None without one.
        cells: cells of the matrix, to show how many remain.
        began_s: when the probe began, on `clock`; None: now.
        budget_began_s: when the budget began; None: with the probe.
        quiet: show nothing.
        console: where to write; stderr if None.
        clock: returns seconds, monotonic.
    """

    def __init__(
        self,
        *,
        budget_s: float | None = None,
        cells: Sequence[Cell] = (),
        began_s: float | None = None,
        budget_began_s: float | None = None,
        quiet: bool = False,
        console: Console | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        super().__init__(quiet=quiet, console=console, clock=clock, began_s=began_s)
        self._budget_s, self._budget_began_s = budget_s, budget_began_s
        self._cells = [cell.cell_id for cell in cells]
        self._records: list[TrialRecord] = []
        self._running = self._running_id = ""
        self._started_s = self._began_s
        self._progress: Progress | None = None
        self._answer = ""
        self._not_run: list[TrialRecord] = []  # of the same reason, not yet told

    def __exit__(self, *exception: Any) -> None:
        self._tell_not_run()
        super().__exit__(*exception)

    def started(self, what: str | Cell, kind: str = "") -> None:
        """Show that a trial of this cell begins, or something else that takes a while."""
        self._tell_not_run()
        name = what.name if isinstance(what, Cell) else what
        self._running_id = what.cell_id if isinstance(what, Cell) else what
        self._running = clean(f"{name} ({kind_words(kind)})" if kind else name, 100)
        self._started_s, self._progress = self._clock(), None
        self._redraw(now=True)

    def tick(self, progress: Progress | None = None) -> None:
        """Show the running trial's latest progress; call it often, it redraws rarely."""
        self._progress = progress
        self._redraw()

    def record(self, record: TrialRecord) -> None:
        """Show a finished trial."""
        self._records.append(record)
        self._running = self._running_id = ""
        added = record.kind in ("full", "predicted") and record.cell_id not in self._cells
        if self._cells and added:  # the search has added a cell
            self._cells.append(record.cell_id)
        if self._live is not None:
            self._redraw(now=True)
        elif not self._quiet and record.kind != "predicted":
            if any(r.reason != record.reason for r in self._not_run) or record.launch:
                self._tell_not_run()
            if record.launch:
                self._tell(trial_line(record))
            else:
                self._not_run.append(record)

    def message(self, text: str) -> None:
        """Print a line that stays."""
        self._tell_not_run()
        super().message(text)

    def _tell(self, line: str) -> None:
        super().message(f"[{self._clock() - self._began_s:.0f} s] {line}")

    def _tell_not_run(self) -> None:
        """A line on the cells that were not run for one reason."""
        records, self._not_run = self._not_run, []
        if len(records) == 1:
            self._tell(trial_line(records[0]))
        elif records:
            what = f"{len(records)} configurations {records[0].verdict}"
            self._tell(f"{what}. {sentence(records[0].reason)}")

    def answer(self, answer: AnswerSoFar) -> None:
        """Show the answer so far; without a terminal, a line if it is new."""
        line = so_far_line(answer)
        if line == self._answer:
            return
        self._tell_not_run()
        self._answer = line
        if self._live is not None:
            self._redraw(now=True)
        elif not self._quiet and line:
            self._tell(line)

    def _renderable(self) -> RenderableType:
        width, height = self._console.size
        parts: list[RenderableType] = []
        if self._records:
            table = matrix_table(self._records)
            parts.append(table_renderable(_shortened(table, height - _LINES_BELOW), width))
        results = cell_results(self._records)
        answer = Text(self._answer or best_line(results), "bold")
        lines = (
            self._marks(results), Text(self._now_line()), answer,
            Text(alone_line(self._records), "dim"), Text(self._budget_line(), "dim"),
        )  # fmt: skip
        for line in lines:
            line.no_wrap, line.overflow = True, "ellipsis"
        return Group(*parts, *(line for line in lines if line))

    def _marks(self, results: Sequence[CellResult]) -> Text:
        """A mark per cell of the matrix, in order, and the number of cells per standing."""
        known = {result.record.cell_id: _standing(result) for result in results}
        if self._running_id in self._cells and known.get(self._running_id) in (None, _PREDICTED):
            known[self._running_id] = _RUNNING
        standings = [known.get(cell_id, _WAITING) for cell_id in self._cells]
        if not standings:
            return Text()
        marks = Text.assemble(*((mark, style) for mark, style, _ in standings))
        counts = [
            f"{standings.count(one)} {one[2]}"
            for one in (_OK, _FAILED, _PREDICTED, _NOT_RUN, _WAITING)
            if one in standings
        ]
        return Text.assemble("cells ", marks, ("  " + ", ".join(counts), "dim"))

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
        return f"{words}, {format_duration(max(1, round(self._clock() - self._started_s)))}"

    def _budget_line(self) -> str:
        if self._budget_s is None:
            return ""
        began_s = self._began_s if self._budget_began_s is None else self._budget_began_s
        left_s = max(0.0, self._budget_s - (self._clock() - began_s))
        return f"budget left {left_s:.0f} s"


def _standing(result: CellResult) -> tuple[str, str, str]:
    if result.failed:
        return _FAILED
    if result.verdict in NOT_RUN:
        return _NOT_RUN
    return _PREDICTED if result.verdict == "predicted" else _OK


def best_line(results: Sequence[CellResult]) -> str:
    """The best measured cell so far: `best whole run 6 h 02 min (5.4 .. 6.6 h), cpu-thread-...`."""
    best = next((r.record for r in results if r.verdict == "ok"), None)
    if best is None:
        return ""
    total = projection_words(
        best.projected_total_s, best.projected_total_s_low, best.projected_total_s_high
    )
    words = f"whole run {total}, "
    if best.projected_total_s is None:
        epoch = projection_words(
            best.projected_epoch_s, best.projected_epoch_s_low, best.projected_epoch_s_high
        )
        words = "" if best.projected_epoch_s is None else f"epoch {epoch}, "
    return f"best {words}{clean(best.cell.name, 60)}"


def so_far_line(answer: AnswerSoFar) -> str:
    """`so far: whole run 6 h 02 min (5.4 .. 6.6 h), cpu-thread-..., 2 launches`."""
    if answer.basis == "bound":
        return _bound_line(answer)
    what = "whole run"
    words = projection_words(
        answer.projected_total_s, answer.projected_total_s_low, answer.projected_total_s_high
    )
    if answer.projected_total_s is None:
        what = "an epoch"
        words = projection_words(
            answer.projected_epoch_s, answer.projected_epoch_s_low, answer.projected_epoch_s_high
        )
        if answer.projected_epoch_s is None:
            what = "a step"
            words = step_words(answer.step_s, answer.step_s_low, answer.step_s_high)
    rests_on = "predicted from its step and its loader, each measured alone"
    if answer.basis == "measured":
        rests_on = f"measured in {answer.launches} launch{'es' * (answer.launches != 1)}"
    return f"so far: {what} {words} with {clean(answer.cell.name, 60)}, {rests_on}"


def _bound_line(answer: AnswerSoFar) -> str:
    at_least = [
        f"{what} at least {format_duration(low_s)}"
        for what, low_s in (
            ("whole run", answer.projected_total_s_low), ("an epoch", answer.projected_epoch_s_low)
        )
        if low_s is not None
    ]  # fmt: skip
    if not at_least:
        return ""
    cell = answer.cell
    step = step_words(answer.step_s_low, None, None)
    return (
        f"so far: {at_least[0]}: on {clean(cell.device, 20)} with batch {cell.batch_size} a step "
        f"takes at least {step} without its loader"
    )


def alone_line(records: Sequence[TrialRecord]) -> str:
    """Lower bounds of a step: computing alone, and the fastest loader alone."""
    parts = []
    for kind, words in (("compute", "computing"), ("loader", "loading")):
        steps_s = [r.step_s for r in records if r.kind == kind and r.verdict == "ok" and r.step_s]
        if steps_s:
            parts.append(f"{words} alone {step_words(min(steps_s), None, None)}")
    return f"a step: {', '.join(parts)}" if parts else ""


def _shortened(table: Table, most_rows: int) -> Table:
    """The first (best) rows: a display taller than the terminal cannot be redrawn."""
    most_rows = max(3, most_rows)
    if len(table.rows) <= most_rows:
        return table
    left_out = len(table.rows) - most_rows + 1
    rest = (f"+ {left_out}",) + ("",) * (len(table.columns) - 1)
    rows = (*table.rows[: most_rows - 1], rest)
    return Table(table.columns, rows, (*table.tones[: most_rows - 1], "dim"))


def kind_words(kind: str) -> str:
    """A trial's kind in words."""
    return {"full": "whole step", "compute": "computing alone", "loader": "loader alone"}.get(
        kind, kind
    )


def trial_line(record: TrialRecord) -> str:
    """A finished trial in a line."""
    head = f"{record.cell.name} ({kind_words(record.kind)}): {record.verdict}"
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
    elif record.projected_epoch_s is not None:
        parts.append(f"an epoch {format_duration(record.projected_epoch_s)}")
    return clean(", ".join(parts))
