"""Chart of a real run by epoch: its metrics beside known ones, its times beside the projection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ctrkit.core.config import RunSizes
from ctrkit.core.epochs import EpochRow
from ctrkit.core.plugins import KnownEpoch, Metric
from ctrkit.core.records import Recommendation
from ctrkit.core.units import format_duration
from ctrkit.report.charts.scales import time_ticks, time_unit
from ctrkit.report.charts.svg import FONT_PX, TOKENS, Canvas, Chart, Key, draw
from ctrkit.report.contents import is_partial
from ctrkit.report.train_view import interval_words
from ctrkit.report.words import clean, projection_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PANEL_PX, _HEAD_PX, _AXIS_PX, _GAP_PX, _LEFT_PX = 170.0, 30.0, 40.0, 34.0, 46.0
_KNOWN_MARKS = ("D", "s", "^", "v")
_KNOWN_GLYPHS = ("◇", "□", "△", "▽")
_MOST_LABELS, _MOST_BAR_PX = 12, 72.0
_TIME_WORDS = {
    "training": "an epoch", "wait": "longer than projected", "other": "cut, not a whole epoch",
}  # fmt: skip


@dataclass(frozen=True)
class Panel:
    """One small chart: columns of `epochs.csv` with the colour of each."""

    title: str
    series: tuple[tuple[str, str], ...]


_MOST_PANELS = 6
_SPLITS = ("train", "val", "validation", "test")


def panels_of(metrics: Sequence[Metric]) -> list[Panel]:
    """A chart per metric; metrics with the same title, or the same name in two splits, share one.

    If the plug-in names any, only those are drawn.
    """
    drawn = [metric for metric in metrics if metric.panel] or metrics
    series: dict[str, list[tuple[str, str]]] = {}
    for metric in drawn:
        split, _, rest = metric.name.partition("_")
        title = metric.panel or (rest if split in _SPLITS and rest else metric.name)
        token = "training" if split == "train" else "validation"
        series.setdefault(title, []).append((metric.name, token))
    return [Panel(title, tuple(columns)) for title, columns in series.items()][:_MOST_PANELS]


def curves_chart(
    epochs: Sequence[EpochRow],
    metrics: Sequence[Metric],
    known: Sequence[KnownEpoch],
    marked: Sequence[float],
    prefix: str = "run",
) -> Chart | None:
    """The metrics per epoch; None if no epoch has any of them.

    Args:
        epochs: rows of `epochs.csv`.
        metrics: its columns that are metrics.
        known: first epochs of other runs, drawn as single points.
        marked: epochs with an incident.
        prefix: start of the ids in the SVG.
    """
    panels = [
        panel for panel in panels_of(metrics)
        if any(row.get(column) is not None for column, _ in panel.series for row in epochs)
    ]  # fmt: skip
    if not panels:
        return None
    used = {token for panel in panels for _, token in panel.series}
    keys = [Key(t, t, "line") for t in ("training", "validation") if t in used]
    keys += [
        Key("muted", f"{_glyph(i)} {epoch.run}, known: epoch {epoch.epoch}", "none")
        for i, epoch in enumerate(known)
    ]
    if marked:
        keys.append(Key("bad", "incident", "dashed"))
    return draw(
        f"{prefix}-curves",
        lambda width: _paint_curves(panels, epochs, known, marked, width),
        title="Curves",
        alt=clean(" ".join(_panel_words(panel, epochs) for panel in panels), 1000),
        keys=keys,
    )


def _glyph(number: int) -> str:
    return _KNOWN_GLYPHS[number % len(_KNOWN_GLYPHS)]


def _panel_words(panel: Panel, epochs: Sequence[EpochRow]) -> str:
    parts = []
    for column, _ in panel.series:
        values = [value for row in epochs if (value := row.get(column)) is not None]
        if values:
            parts.append(f"{column.replace('_', ' ')} from {values[0]:.4f} to {values[-1]:.4f}")
    return f"{panel.title}: {', '.join(parts)}."


def _paint_curves(
    panels: Sequence[Panel],
    epochs: Sequence[EpochRow],
    known: Sequence[KnownEpoch],
    marked: Sequence[float],
    width: float,
) -> Canvas:
    across = len(panels) if width > 500 else 1
    down = -(-len(panels) // across)
    cell_px = (width - _GAP_PX * (across - 1)) / across
    row_px = _HEAD_PX + _PANEL_PX + _AXIS_PX
    canvas = Canvas(width, down * row_px)
    for number, panel in enumerate(panels):
        row, column = divmod(number, across)
        axes = canvas.panel(
            column * (cell_px + _GAP_PX) + _LEFT_PX, row * row_px + _HEAD_PX,
            cell_px - _LEFT_PX - 8, _PANEL_PX,
        )  # fmt: skip
        _paint_panel(axes, panel, epochs, known, marked)
    return canvas


def _paint_panel(
    axes: Axes,
    panel: Panel,
    epochs: Sequence[EpochRow],
    known: Sequence[KnownEpoch],
    marked: Sequence[float],
) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.grid(axis="x", visible=False)
    axes.grid(axis="y", color=TOKENS["line"], linewidth=1)
    for column, token in panel.series:
        points = [(row["epoch"] or 0.0, row.get(column)) for row in epochs]
        points = [point for point in points if point[1] is not None]
        axes.plot(*_columns(points), "-o", color=TOKENS[token], linewidth=2, markersize=5)
        for number, epoch in enumerate(known):
            value = epoch.metrics.get(column)
            if value is not None:
                axes.plot([epoch.epoch], [value], _KNOWN_MARKS[number % len(_KNOWN_MARKS)],
                          markerfacecolor=TOKENS["surface"], color=TOKENS[token], markersize=8,
                          markeredgewidth=1.8)  # fmt: skip
    for at in marked:
        axes.axvline(at, color=TOKENS["bad"], linewidth=1, linestyle=(0, (3, 3)))
    last = max([row["epoch"] or 0.0 for row in epochs] + [2.0])
    axes.set_xlim(0.7, last + 0.3)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.margins(y=0.12)
    axes.set_title(
        clean(panel.title, 40), loc="left", fontsize=FONT_PX, color=TOKENS["ink"], pad=10
    )
    axes.set_xlabel("epoch", fontsize=11, color=TOKENS["muted"], labelpad=2)


def _columns(points: Sequence[tuple[float, Any]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def times_chart(
    epochs: Sequence[EpochRow],
    projection: Recommendation | None,
    sizes: RunSizes | None,
    marked: Sequence[float],
    prefix: str = "run",
) -> Chart | None:
    """Wall-clock time of each epoch beside the projected interval; None if none was timed."""
    timed = [row for row in epochs if row["wall_s"] is not None and row["epoch"] is not None]
    if not timed:
        return None
    projected_s = projection.projected_epoch_s if projection else None
    tokens = {_time_token(row, projection, sizes) for row in timed}
    keys = [Key(token, words) for token, words in _TIME_WORDS.items() if token in tokens]
    if projected_s is not None:
        keys.append(Key("ink", "projected, with its interval", "line"))
    if marked:
        keys.append(Key("bad", "incident", "triangle"))
    return draw(
        f"{prefix}-times",
        lambda width: _paint_times(timed, projection, sizes, marked, width),
        title="Time per epoch",
        alt=clean(_times_words(timed, projection), 1000),
        keys=keys,
    )


def _time_token(row: EpochRow, projection: Recommendation | None, sizes: RunSizes | None) -> str:
    if is_partial(row, sizes):
        return "other"
    outside = (
        projection is not None and interval_words(row["wall_s"] or 0.0, projection) == "longer"
    )
    return "wait" if outside else "training"


def _times_words(timed: Sequence[EpochRow], projection: Recommendation | None) -> str:
    took = ", ".join(f"epoch {row['epoch']:g} {format_duration(row['wall_s'])}" for row in timed)
    if projection is None or projection.projected_epoch_s is None:
        return f"Took: {took}. Nothing was projected."
    low_s, high_s = projection.projected_epoch_s_low, projection.projected_epoch_s_high
    projected = projection_words(projection.projected_epoch_s, low_s, high_s)
    return f"Took: {took}. Projected: {projected}."


def _paint_times(
    timed: Sequence[EpochRow],
    projection: Recommendation | None,
    sizes: RunSizes | None,
    marked: Sequence[float],
    width: float,
) -> Canvas:
    from matplotlib.ticker import MaxNLocator

    canvas = Canvas(width, _PANEL_PX + _HEAD_PX + _AXIS_PX)
    axes = canvas.panel(_LEFT_PX, _HEAD_PX, width - _LEFT_PX - 8, _PANEL_PX)
    axes.grid(axis="x", visible=False)
    axes.grid(axis="y", color=TOKENS["line"], linewidth=1)
    longest_s = max(row["wall_s"] or 0.0 for row in timed)
    bounds: Mapping[str, float | None] = {}
    if projection is not None and projection.projected_epoch_s is not None:
        bounds = {
            "mean": projection.projected_epoch_s, "low": projection.projected_epoch_s_low,
            "high": projection.projected_epoch_s_high,
        }  # fmt: skip
        longest_s = max(longest_s, *(value for value in bounds.values() if value is not None))
    per, unit = time_unit(longest_s)
    numbers = [row["epoch"] or 0.0 for row in timed]
    plot_px = width - _LEFT_PX - 8
    axes.set_xlim(min(numbers) - 0.6, max(numbers) + 0.6)
    thick = min(0.62, _MOST_BAR_PX / plot_px * (max(numbers) - min(numbers) + 1.2))
    for number, row in zip(numbers, timed, strict=True):
        color = TOKENS[_time_token(row, projection, sizes)]
        axes.bar(number, (row["wall_s"] or 0.0) / per, width=thick, color=color)
    low, high, mean = bounds.get("low"), bounds.get("high"), bounds.get("mean")
    if low is not None and high is not None:
        axes.axhspan(low / per, high / per, color=TOKENS["ink"], alpha=0.14, linewidth=0)
    if mean is not None:
        axes.axhline(mean / per, color=TOKENS["ink"], linewidth=1.5)
    took_s = {row["epoch"]: row["wall_s"] or 0.0 for row in timed}
    for at in marked:
        top = max(took_s.get(at, 0.0), bounds.get("high") or 0.0) / per
        axes.plot([at], [top + longest_s / per * 0.06], "v", color=TOKENS["bad"], markersize=9)
    axes.set_ylim(0, longest_s / per * 1.12)
    axes.xaxis.set_major_locator(MaxNLocator(_MOST_LABELS, integer=True))
    time_ticks(axes.yaxis, unit, _PANEL_PX, 40)
    axes.set_xlabel("epoch", fontsize=11, color=TOKENS["muted"], labelpad=2)
    return canvas
