"""Scales that charts share: seconds in a suitable unit, and what cells have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ctrkit.core import axes as core_axes
from ctrkit.core.cell import Cell, axes_of
from ctrkit.report.charts.svg import FONT_PX, TOKENS, fitting, text_px
from ctrkit.report.matrix_view import varying_axes
from ctrkit.report.words import axis_label, clean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

_UNITS = (
    (1.0, 1e-3, "ms"), (180.0, 1.0, "s"), (3 * 3600.0, 60.0, "min"), (72 * 3600.0, 3600.0, "h"),
)  # fmt: skip
_LABEL_SHARE = 0.42
_NARROW_BELOW_PX = 500


def time_unit(longest_s: float) -> tuple[float, str]:
    """Seconds per unit and the unit's name, for an axis up to `longest_s`."""
    return next(((per, unit) for limit, per, unit in _UNITS if longest_s < limit), (86400.0, "d"))


def cell_labels(cells: Sequence[Cell]) -> list[str]:
    """A short name for each cell: the axes in which they differ, `thread, 2 workers, spawn`."""
    axes = varying_axes(cells) or ["device", "loader", "workers"]
    return [_label(cell, axes) for cell in cells]


def _label(cell: Cell, axes: Sequence[str]) -> str:
    rows = [row for row in axes_of(type(cell)) if row.name in axes]
    return ", ".join(filter(None, (_value_label(row, cell) for row in rows)))


def _value_label(row: core_axes.Axis, cell: Cell) -> str:
    """The value in a chart's short form; empty if the axis does not apply, or is off."""
    value = getattr(cell, row.name)
    if value is None or (row.of_workers and not cell.workers):
        return ""
    say = row.label or row.words
    return clean(say(value), 40) if say else axis_label(row.name, value)


def is_narrow(width_px: float) -> bool:
    """Whether labels are above their rows for lack of room beside them."""
    return width_px < _NARROW_BELOW_PX


def label_width(labels: Sequence[str], width_px: float) -> float:
    """Pixels for the labels left of a chart's rows; few if they are above."""
    if is_narrow(width_px):
        return 2.0
    return min(text_px(labels) + 12, width_px * _LABEL_SHARE)


def name_rows(
    axes: Axes,
    labels: Sequence[str],
    room_px: float,
    above: float | None = None,
    up: float = 0.0,
) -> None:
    """Name rows 0, 1, ... from the top down, with labels at the left or `above` their middle.

    A label at the left is higher than the middle by `up`, a share of a row.
    """
    axes.set_ylim(len(labels) - 0.5, -0.5)
    if above is None:
        places = [number - up for number in range(len(labels))]
        axes.set_yticks(places, [fitting(label, room_px - 8) for label in labels])
        axes.tick_params(axis="y", colors=TOKENS["ink"], labelsize=FONT_PX, pad=8)
        return
    axes.set_yticks([])
    for number, label in enumerate(labels):
        axes.text(0, number - above, fitting(label, room_px), va="center", ha="left",
                  transform=axes.get_yaxis_transform(), color=TOKENS["ink"])  # fmt: skip


def time_ticks(axis: Axis, unit: str, room_px: float, px_per_tick: float = 75.0) -> None:
    """As many ticks as are readable in that room, each with the unit."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    most = max(2, min(8, int(room_px / px_per_tick)))
    axis.set_major_locator(MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{round(value, 6):g} {unit}"))
