"""Chart of projected times as ranges: the recommended cell, its terms, and other cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ctrkit.core.records import Recommendation, TrialRecord
from ctrkit.core.units import format_duration
from ctrkit.report.charts.scales import (
    cell_labels,
    is_narrow,
    label_width,
    time_ticks,
    time_unit,
)
from ctrkit.report.charts.svg import FONT_PX, TOKENS, Canvas, Chart, Key, draw, fitting, text_px
from ctrkit.report.matrix_view import cell_results, has_figures
from ctrkit.report.words import clean, percent, plural, projection_words, range_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_OTHERS = 5
_RANGE_PX, _OTHER_PX, _PARTS_PX, _AXIS_PX = 56.0, 26.0, 52.0, 24.0
_BOLD = 1.12  # bold letters are wider by this factor
_LEAST_LABEL_PX = 20.0
_PART_WORDS = {"other": "start-up, loader restarts and checkpoints"}


@dataclass(frozen=True)
class Range:
    """A projected run in seconds; `label` names its cell."""

    label: str
    total_s: float
    low_s: float
    high_s: float


def ranges_of(trials: Sequence[TrialRecord], best: Recommendation) -> list[Range]:
    """The recommended cell's run, then those of the other cells that were really run."""
    if best.projected_total_s is None:
        return []
    others = [
        result.record for result in cell_results(trials)
        if has_figures(result.record) and result.record.cell_id != best.cell.cell_id
        and result.record.projected_total_s is not None
    ][:_MOST_OTHERS]  # fmt: skip
    labels = cell_labels([best.cell, *(record.cell for record in others)])
    of_best = _range(
        labels[0], best.projected_total_s, best.projected_total_s_low, best.projected_total_s_high
    )
    of_others = [
        _range(label, r.projected_total_s, r.projected_total_s_low, r.projected_total_s_high)
        for label, r in zip(labels[1:], others, strict=True)
    ]
    return [of_best, *of_others]


def _range(label: str, total_s: float | None, low_s: float | None, high_s: float | None) -> Range:
    mean_s = total_s or 0.0
    low_s, high_s = (mean_s if bound is None else bound for bound in (low_s, high_s))
    return Range(label, mean_s, low_s, high_s)


def parts_of_run(
    trials: Sequence[TrialRecord], best: Recommendation, epochs: int
) -> list[tuple[str, float]]:
    """The parts of the projected run, in seconds: training, validation, other.

    Validation, restarts and checkpoints come from the cell's trials; training is the rest of the
    projected epoch. Empty if no epoch was projected.
    """
    epoch_s, total_s = best.projected_epoch_s, best.projected_total_s
    if epoch_s is None or total_s is None:
        return []
    ran = [t for t in trials if t.cell_id == best.cell.cell_id and has_figures(t)]
    validation_s = _mean([t.validation_s for t in ran])
    beside_s = _mean([t.epoch_restart_s for t in ran]) + _mean([t.checkpoint_s for t in ran])
    training_s = epoch_s - validation_s - beside_s
    if training_s <= 0:
        return []
    rest_s = max(0.0, total_s - epochs * (training_s + validation_s))
    parts = [
        ("training", epochs * training_s), ("validation", epochs * validation_s), ("other", rest_s)
    ]  # fmt: skip
    return [(name, seconds) for name, seconds in parts if seconds > 0]


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else 0.0


def projection_chart(
    trials: Sequence[TrialRecord], best: Recommendation, epochs: int, prefix: str = "run"
) -> Chart | None:
    """The range of the whole run and its parts; None if the run was not projected."""
    ranges = ranges_of(trials, best)
    if not ranges:
        return None
    parts = parts_of_run(trials, best, epochs)
    keys = [Key("accent", "recommended cell", "dot")]
    if len(ranges) > 1:
        keys.append(Key("muted", "other cells that ran", "dot"))
    whole = sum(seconds for _, seconds in parts)
    keys += [
        Key(name, f"{_PART_WORDS.get(name, name)} {format_duration(seconds)}, "
            f"{percent(seconds / whole)}")
        for name, seconds in parts
    ]  # fmt: skip
    made_of = ", ".join(
        f"{_PART_WORDS.get(name, name)} {percent(seconds / whole)}" for name, seconds in parts
    )
    return draw(
        f"{prefix}-projection",
        lambda width: _paint(ranges, parts, width),
        title=f"The whole run of {plural(epochs, 'epoch')}",
        alt=clean(
            "Projected: "
            + projection_words(ranges[0].total_s, ranges[0].low_s, ranges[0].high_s)
            + (f", made of {made_of}" if made_of else "")
            + "".join(f"; {r.label}: {format_duration(r.total_s)}" for r in ranges[1:])
            + ".",
            1000,
        ),
        keys=keys,
        note="A future run should take a time within the bar, 19 times in 20."
        if ranges[0].high_s > ranges[0].low_s
        else "",
    )  # fmt: skip


def _paint(ranges: Sequence[Range], parts: Sequence[tuple[str, float]], width: float) -> Canvas:
    narrow = is_narrow(width)
    left = label_width([r.label for r in ranges] + ["made of"], width)
    left = left if narrow else max(left, text_px([ranges[0].label]) * _BOLD + 12)
    other_px = _OTHER_PX + (16 if narrow else 0)
    height = _RANGE_PX + other_px * (len(ranges) - 1)
    canvas = Canvas(width, height + _AXIS_PX + (_PARTS_PX if parts else 0.0))
    axes = canvas.panel(left, 2, width - left - 8, height)
    longest = max(max(r.high_s, r.total_s) for r in ranges)
    per, unit = time_unit(longest)
    axes.set_xlim(0, longest / per * 1.05)
    axes.set_ylim(height, 0)
    axes.set_yticks([])
    time_ticks(axes.xaxis, unit, width - left)
    for number, item in enumerate(ranges):
        middle = (
            38.0 if not number else _RANGE_PX + other_px * (number - 0.5) + (9 if narrow else 0)
        )
        _paint_range(axes, item, middle, per, best=not number)
        if number or not narrow:
            _name(axes, middle, item.label, left, bold=not number)
    _say_total(axes, ranges[0], per)
    if parts:
        top = height + _AXIS_PX
        _paint_parts(canvas.panel(left, top, width - left - 8, _PARTS_PX), parts, left)
    return canvas


def _paint_parts(axes: Axes, parts: Sequence[tuple[str, float]], room_px: float) -> None:
    """The parts as shares of the run, over the whole width; its length is shown above."""
    axes.grid(visible=False)
    axes.set_xlim(0, sum(seconds for _, seconds in parts))
    axes.set_ylim(_PARTS_PX, 0)
    axes.set_xticks([])
    axes.set_yticks([])
    middle, start = _PARTS_PX - 16, 0.0
    for name, seconds in parts:
        axes.barh(middle, seconds, left=start, height=22, color=TOKENS[name],
                  edgecolor=TOKENS["surface"], linewidth=1)  # fmt: skip
        start += seconds
    _name(axes, middle, "made of", room_px)


def _paint_range(axes: Axes, item: Range, middle: float, per: float, *, best: bool) -> None:
    token, thick = ("accent", 14.0) if best else ("muted", 5.0)
    axes.barh(middle, (item.high_s - item.low_s) / per, left=item.low_s / per, height=thick,
              color=TOKENS[token], alpha=0.35)  # fmt: skip
    axes.plot(
        [item.total_s / per], [middle], "o", color=TOKENS[token], markersize=11 if best else 6
    )


def _say_total(axes: Axes, first: Range, per: float) -> None:
    """The projected time above its bar, on the side with more room."""
    words = format_duration(first.total_s)
    if first.high_s > first.low_s:
        words += f" ({range_words(first.low_s, first.high_s)})"
    on_right = first.total_s / per > axes.get_xlim()[1] / 2
    at = first.high_s if on_right else max(0.0, first.low_s)
    axes.text(at / per, 16, words, va="center", ha="right" if on_right else "left",
              fontsize=FONT_PX, fontweight="bold", color=TOKENS["ink"])  # fmt: skip


def _name(axes: Axes, middle: float, label: str, room_px: float, *, bold: bool = False) -> None:
    """The label left of its row, or above it if there is no room."""
    above = room_px < _LEAST_LABEL_PX
    axes.annotate(
        label if above else fitting(label, room_px - 8), (0, middle),
        xycoords=("axes fraction", "data"), xytext=(0, 19) if above else (-8, 0),
        textcoords="offset points", ha="left" if above else "right", va="center",
        color=TOKENS["ink"], fontweight="bold" if bold else "normal",
    )  # fmt: skip
