"""Chart of seconds per batch of each cell, with intervals and the stages of a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ctrkit.core.cell import AXES
from ctrkit.core.records import TrialRecord
from ctrkit.report.charts.scales import (
    cell_labels,
    is_narrow,
    label_width,
    name_rows,
    time_ticks,
    time_unit,
)
from ctrkit.report.charts.svg import TOKENS, Canvas, Chart, Key, draw, fitting, text_px
from ctrkit.report.matrix_view import cell_results, has_figures
from ctrkit.report.words import clean, percent, step_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_CELLS = 16
_ROW_PX, _NARROW_ROW_PX, _AXIS_PX = 30.0, 44.0, 24.0
_STAGE_ROW_PX = 56.0
_BAR_UP = 0.12  # share of a row by which a bar's middle is above the row's, with thin bars below
_VALUE_PX, _STEP_PX = 108.0, 68.0
# Above this ratio of the slowest to the fastest step, a linear axis hides the fast ones.
_LOG_FROM = 30.0
_IN_THE_LOOP = ("transfer", "forward", "backward", "optimizer")
_IN_A_LOADER = ("fetch", "collate", "ipc")


@dataclass(frozen=True)
class StepRow:
    """A cell's mean step and interval in seconds, with the mean of each launch."""

    label: str
    step_s: float
    low_s: float
    high_s: float
    launches_s: tuple[float, ...]
    measured: bool
    best: bool


def step_rows(trials: Sequence[TrialRecord], best_id: str | None) -> list[StepRow]:
    """The cells with a known step, in the order of the table."""
    known = [
        r.record for r in cell_results(trials)
        if r.record.step_s is not None and (not r.failed or has_figures(r.record))
    ][:_MOST_CELLS]  # fmt: skip
    labels = cell_labels([record.cell for record in known])
    rows = []
    for record, label in zip(known, labels, strict=True):
        step_s = record.step_s or 0.0
        launches = tuple(
            t.step_s for t in trials
            if t.cell_id == record.cell_id and has_figures(t) and t.step_s is not None
        )  # fmt: skip
        low_s = step_s if record.step_s_low is None else record.step_s_low
        high_s = step_s if record.step_s_high is None else record.step_s_high
        rows.append(
            StepRow(
                label, step_s, low_s, high_s, launches,
                measured=has_figures(record), best=record.cell_id == best_id,
            )
        )  # fmt: skip
    return rows


def step_chart(
    trials: Sequence[TrialRecord], best_id: str | None, prefix: str = "run"
) -> Chart | None:
    """Each cell's step as a point with its interval; None if no step is known."""
    rows = step_rows(trials, best_id)
    if not rows:
        return None
    keys = [Key("accent", "mean and interval", "dot")]
    if any(len(row.launches_s) > 1 for row in rows):
        keys.append(Key("muted", "one launch", "tick"))
    if any(not row.measured for row in rows):
        keys.append(Key("muted", "predicted", "ring"))
    words = "; ".join(
        f"{row.label}: {step_words(row.step_s, row.low_s, row.high_s)}"
        + ("" if row.measured else " predicted")
        for row in rows
    )
    return draw(
        f"{prefix}-steps",
        lambda width: _paint_steps(rows, width),
        title="Seconds per batch",
        alt=clean(f"Seconds per batch with intervals. {words}.", 1500),
        keys=keys,
        note=f"The {len(rows)} fastest cells." if len(rows) == _MOST_CELLS else "",
    )


def _paint_steps(rows: Sequence[StepRow], width: float) -> Canvas:
    narrow = is_narrow(width)
    row_px = _NARROW_ROW_PX if narrow else _ROW_PX
    labels = [row.label for row in rows]
    left, right = label_width(labels, width), 8 if narrow else _VALUE_PX
    plot_px = width - left - right
    canvas = Canvas(width, row_px * len(rows) + _AXIS_PX)
    axes = canvas.panel(left, 2, plot_px, row_px * len(rows))
    per, unit = time_unit(max(row.high_s for row in rows))
    fastest = min(row.step_s for row in rows)
    time_ticks(axes.xaxis, unit, plot_px)
    if fastest > 0 and max(row.step_s for row in rows) / fastest > _LOG_FROM:
        _log_axis(axes, unit)
    else:
        axes.set_xlim(0, max(row.high_s for row in rows) / per * 1.04)
    values = [step_words(row.step_s, row.low_s, row.high_s) for row in rows]
    if narrow:
        labels = _with_values(labels, values, width)
    name_rows(axes, labels, 2 * width if narrow else left, 0.2 if narrow else None)
    for number, (row, value) in enumerate(zip(rows, values, strict=True)):
        _paint_row(axes, row, number + (0.2 if narrow else 0.0), per)
        if not narrow:
            axes.text(1.02, number, value, va="center", transform=axes.get_yaxis_transform(),
                      color=TOKENS["ink" if row.measured else "muted"])  # fmt: skip
    return canvas


def _with_values(labels: Sequence[str], values: Sequence[str], width: float) -> list[str]:
    """Labels such as `thread, no workers: 328 ms ±103`, cut so that the value fits."""
    return [
        f"{fitting(label, width - text_px([value, '12345']))}: {value}"
        for label, value in zip(labels, values, strict=True)
    ]


def _log_axis(axes: Axes, unit: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(numticks=6))
    per = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}.get(unit, 86400.0)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick_words(value * per)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", which="both", length=0)


def _tick_words(value_s: float) -> str:
    """A tick of a logarithmic axis in a suitable unit: `0.1 ms`, `10 s`."""
    per, unit = time_unit(value_s / 0.999) if value_s >= 0.999 else (1e-3, "ms")
    return f"{float(f'{value_s / per:.3g}'):g} {unit}"


def _paint_row(axes: Axes, row: StepRow, middle: float, per: float) -> None:
    """The interval as a line, the mean as a dot, each launch as a tick above it."""
    color = TOKENS["accent" if row.best else "ink" if row.measured else "muted"]
    low, high, mean = (max(0.0, value) / per for value in (row.low_s, row.high_s, row.step_s))
    axes.plot([low, high], [middle, middle], color=color, linewidth=2.5 if row.measured else 1.2,
              solid_capstyle="round")  # fmt: skip
    if len(row.launches_s) > 1:
        axes.plot([v / per for v in row.launches_s], [middle - 0.24] * len(row.launches_s), "|",
                  color=TOKENS["muted"], markersize=6, markeredgewidth=1.2)  # fmt: skip
    axes.plot([mean], [middle], "o", color=color, markersize=8, markeredgewidth=1.5,
              markerfacecolor=color if row.measured else TOKENS["surface"])  # fmt: skip


@dataclass(frozen=True)
class StageRow:
    """A measured cell's step in parts (seconds), beside the time of each side alone.

    `making_s` is the workers' time per batch by stage, divided by their number.
    """

    label: str
    parts_s: tuple[tuple[str, float], ...]
    compute_s: float | None
    loader_s: float | None
    making_s: tuple[tuple[str, float], ...] = ()

    @property
    def step_s(self) -> float:
        """Seconds of the whole step."""
        return sum(seconds for _, seconds in self.parts_s)

    @property
    def worker_s(self) -> float:
        """The sum of `making_s`."""
        return sum(seconds for _, seconds in self.making_s)


def stage_rows(trials: Sequence[TrialRecord]) -> list[StageRow]:
    """The measured cells, the fastest first.

    The step is that of the throughput window, with its wait for data; the rest is divided in the
    proportions of the synchronised attribution window.
    """
    known = [
        r.record for r in cell_results(trials)
        if has_figures(r.record) and r.record.step_s and r.record.data_wait_share is not None
    ][:_MOST_CELLS]  # fmt: skip
    labels = cell_labels([record.cell for record in known])
    return [
        StageRow(
            label,
            parts_of(record),
            _compute_alone(record, trials),
            _loader_alone(record, trials),
            making_of(record),
        )
        for record, label in zip(known, labels, strict=True)
    ]


def parts_of(record: TrialRecord) -> tuple[tuple[str, float], ...]:
    """The wait for data and the loop's stages, in seconds that sum to the step.

    If the loop's own process makes the batches, its wait is divided into its stages.
    """
    step_s, share = record.step_s or 0.0, min(1.0, max(0.0, record.data_wait_share or 0.0))
    waits = _cut_wait(record, step_s * share)
    stages = [(name, record.stage_s[name]) for name in _IN_THE_LOOP if record.stage_s.get(name)]
    whole_s, rest_s = sum(seconds for _, seconds in stages), step_s * (1 - share)
    if whole_s <= 0:
        return *waits, ("other", rest_s)
    return (
        *waits,
        *((name, rest_s * (seconds / whole_s)) for name, seconds in stages),
    )


def _cut_wait(record: TrialRecord, wait_s: float) -> tuple[tuple[str, float], ...]:
    stages = [(name, record.stage_s[name]) for name in _IN_A_LOADER if record.stage_s.get(name)]
    made_s = sum(seconds for _, seconds in stages)
    if record.cell.loads_ahead or made_s <= 0:
        return (("wait", wait_s),)
    # the stages were measured in other steps than the wait, and must not exceed it
    part = min(1.0, wait_s / made_s)
    left_s = max(0.0, wait_s - made_s * part)
    return *((name, seconds * part) for name, seconds in stages), ("wait", left_s)


def making_of(record: TrialRecord) -> tuple[tuple[str, float], ...]:
    """The workers' seconds per batch by stage, divided by their number; empty without workers."""
    workers = record.cell.workers
    if not workers:
        return ()
    stages = [(name, record.stage_s.get(name) or 0.0) for name in _IN_A_LOADER]
    return tuple((name, seconds / workers) for name, seconds in stages if seconds > 0)


def _compute_alone(record: TrialRecord, trials: Sequence[TrialRecord]) -> float | None:
    """The step with a cached batch, from a cell with the same training step."""
    axes = [row.name for row in AXES.values() if not row.loading]
    for t in trials:
        same = all(getattr(t.cell, axis) == getattr(record.cell, axis) for axis in axes)
        if t.kind == "compute" and t.verdict == "ok" and same:
            return t.step_s
    return None


def _loader_alone(record: TrialRecord, trials: Sequence[TrialRecord]) -> float | None:
    for t in trials:
        if t.kind == "loader" and t.verdict == "ok" and t.cell_id == record.cell_id:
            return t.step_s
    return None


_STAGE_WORDS = {"wait": "waiting for data", "other": "everything else"}
_ORDER = ("wait", *_IN_A_LOADER, *_IN_THE_LOOP, "other")


def stage_chart(trials: Sequence[TrialRecord], prefix: str = "run") -> Chart | None:
    """Stacked bars of the measured cells beside the two ceilings.

    None if there is nothing to see: no stage was timed, and no side was run alone.
    """
    rows = stage_rows(trials)
    seen = {name for row in rows for name, seconds in (*row.parts_s, *row.making_s) if seconds > 0}
    if not (seen - {"wait", "other"} or any(row.compute_s or row.loader_s for row in rows)):
        return None
    keys = [Key(name, _STAGE_WORDS.get(name, name)) for name in _ORDER if name in seen]
    if any(row.compute_s for row in rows):
        keys.append(Key("ink", "computing alone", "line"))
    if any(row.loader_s for row in rows):
        keys.append(Key("wait", "loading alone", "line"))
    return draw(
        f"{prefix}-stages",
        lambda width: _paint_stages(rows, width),
        title="The mean step of each measured cell, cut into its parts",
        alt=clean(" ".join(_stage_words(row) for row in rows), 1500),
        keys=keys,
        note=_stage_note(rows),
    )


def _stage_note(rows: Sequence[StageRow]) -> str:
    parts = []
    if any(name in _IN_THE_LOOP for row in rows for name, _ in row.parts_s):
        parts.append("What follows the wait is shared out as in steps that were timed by stage.")
    if any(row.compute_s or row.loader_s for row in rows):
        parts.append("Computing and loading alone are trials of their own, one without the other.")
    if any(row.making_s for row in rows):
        parts.append(
            "The lowest bar is what workers spend on a batch, divided by their number: the loop "
            "waits once that is more than the rest of its step."
        )
    return " ".join(parts)


def _stage_words(row: StageRow) -> str:
    parts = ", ".join(
        f"{_STAGE_WORDS.get(name, name)} {percent(seconds / row.step_s)}"
        for name, seconds in row.parts_s if seconds > 0
    )  # fmt: skip
    alone = [
        f"{what} alone {step_words(value, None, None)}"
        for what, value in (("computing", row.compute_s), ("loading", row.loader_s))
        if value is not None
    ]
    alone += [
        f"workers' {name} {step_words(seconds, None, None)}" for name, seconds in row.making_s
    ]
    return f"{row.label}: {step_words(row.step_s, None, None)}, of it {parts}" + "".join(
        f"; {words}" for words in alone
    ) + "."  # fmt: skip


def _paint_stages(rows: Sequence[StageRow], width: float) -> Canvas:
    narrow = is_narrow(width)
    labels = [row.label for row in rows]
    left, right = label_width(labels, width), 8 if narrow else _STEP_PX
    row_px = _STAGE_ROW_PX + (16 if narrow else 0) + 8 * any(row.making_s for row in rows)
    plot_px = width - left - right
    canvas = Canvas(width, row_px * len(rows) + _AXIS_PX)
    axes = canvas.panel(left, 2, plot_px, row_px * len(rows))
    longest = max(
        max(row.step_s, row.compute_s or 0.0, row.loader_s or 0.0, row.worker_s) for row in rows
    )
    per, unit = time_unit(longest)
    axes.set_xlim(0, longest / per * 1.02)
    time_ticks(axes.xaxis, unit, plot_px)
    values = [step_words(row.step_s, None, None) for row in rows]
    if narrow:
        labels = _with_values(labels, values, width)
    name_rows(
        axes, labels, 2 * width if narrow else left, 0.32 if narrow else None,
        0.0 if narrow else _BAR_UP,
    )  # fmt: skip
    for number, (row, value) in enumerate(zip(rows, values, strict=True)):
        middle = number + (0.08 if narrow else -_BAR_UP)
        _paint_stage_row(axes, row, middle, 24 / row_px, per)
        if not narrow:
            axes.text(1.02, middle, value, transform=axes.get_yaxis_transform(), va="center",
                      color=TOKENS["ink"])  # fmt: skip
    return canvas


def _paint_stage_row(axes: Axes, row: StageRow, middle: float, height: float, per: float) -> None:
    """The step in parts, and below it computing and loading alone."""
    start = 0.0
    for name, seconds in row.parts_s:
        if seconds <= 0:
            continue
        # an edge would hide a part that is thinner than the edge
        edge = 1.0 if seconds > row.step_s / 100 else 0.0
        axes.barh(middle, seconds / per, left=start, height=height, color=TOKENS[name],
                  edgecolor=TOKENS["surface"], linewidth=edge)  # fmt: skip
        start += seconds / per
    for place, value, token in ((0.75, row.compute_s, "ink"), (1.0, row.loader_s, "wait")):
        if value is not None:
            axes.barh(middle + height * place, value / per, height=height / 6, color=TOKENS[token])
    start = 0.0
    for name, seconds in row.making_s:
        axes.barh(middle + height * 1.25, seconds / per, left=start, height=height / 6,
                  color=TOKENS[name])  # fmt: skip
        start += seconds / per
