"""Chart of a trial's batches over time: who made each, how long the loop waited and worked."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from ctrkit.core.units import format_count, format_duration
from ctrkit.report.charts.scales import time_ticks, time_unit
from ctrkit.report.charts.svg import FONT_PX, TOKENS, Canvas, Chart, Key, draw
from ctrkit.report.words import clean, percent, step_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LEFT_PX, _LANE_PX, _WHOLE_PX, _HEAD_PX, _AXIS_PX = 78.0, 30.0, 64.0, 24.0, 28.0
_BIN_PX = 3.0
_CLOSE_UP_STEPS = 24
# A worker's activities for a batch, between the moments of `Step.made_s`.
_MAKING = {"fetch": "fetching samples", "collate": "collating", "ipc": "pickling and sending"}
_WINDOW_WORDS = {"warmup": "warm-up", "boundary": "new epoch"}

TIMELINE_NOTE = (
    "Above the whole trial, in seconds since its launch; below the batches around the longest one. "
    "Blank is what is neither: a new epoch's start, or the measuring itself."
)


@dataclass(frozen=True)
class Step:
    """A batch, with times in seconds since the launch.

    Attributes:
        worker: the worker that made it; None if the loop's own process did, or if unknown.
        made_s: when its samples were asked for, there, collated, and pickled; empty if unknown.
    """

    asked_s: float
    delivered_s: float
    done_s: float
    window: str
    worker: int | None = None
    made_s: tuple[float, ...] = ()


@dataclass(frozen=True)
class Bin:
    """A slice of time, and its shares of waiting and working."""

    start_s: float
    wait: float
    work: float


def bins_of(steps: Sequence[Step], count: int) -> list[Bin]:
    """`count` equal slices, from the first request for a batch to the end of the last step."""
    begin_s, end_s = steps[0].asked_s, steps[-1].done_s
    width_s = max((end_s - begin_s) / count, 1e-9)
    waits, works = [0.0] * count, [0.0] * count
    for step in steps:
        _spread(waits, step.asked_s - begin_s, step.delivered_s - begin_s, width_s)
        _spread(works, step.delivered_s - begin_s, step.done_s - begin_s, width_s)
    return [
        Bin(begin_s + i * width_s, min(1.0, waits[i] / width_s), min(1.0, works[i] / width_s))
        for i in range(count)
    ]


def _spread(bins: list[float], start_s: float, end_s: float, width_s: float) -> None:
    """Add the seconds from start to end to the slices that they overlap."""
    first, last = max(0, int(start_s / width_s)), min(len(bins) - 1, int(end_s / width_s))
    for i in range(first, last + 1):
        bins[i] += max(0.0, min(end_s, (i + 1) * width_s) - max(start_s, i * width_s))


def close_up(steps: Sequence[Step], most: int = _CLOSE_UP_STEPS) -> Sequence[Step]:
    """Up to `most` successive steps around the longest one of the throughput window."""
    usual = [i for i, step in enumerate(steps) if step.window == "throughput"]
    if len(steps) <= most or not usual:
        return steps[:most]
    longest = max(usual, key=lambda i: steps[i].done_s - steps[i].asked_s)
    first = min(max(0, longest - most // 2), len(steps) - most)
    return steps[first : first + most]


def timeline_chart(
    name: str, label: str, steps: Sequence[Step], note: str = TIMELINE_NOTE
) -> Chart | None:
    """The whole trial as shares of time, and some batches in detail; None without batches."""
    steps = [s for s in steps if s.asked_s <= s.delivered_s <= s.done_s]
    if not steps or steps[-1].done_s <= steps[0].asked_s:
        return None
    near = close_up(steps)
    measured = [s for s in steps if s.window == "throughput"] or steps
    wait_s = sum(s.delivered_s - s.asked_s for s in measured)
    whole_s = measured[-1].done_s - measured[0].asked_s
    typical_s = statistics.median(s.done_s - s.asked_s for s in measured)
    longest_s = max(s.done_s - s.asked_s for s in measured)
    return draw(
        name,
        lambda width: _paint(steps, near, width),
        title=clean(label, 160),
        alt=clean(
            f"{batch_words(len(steps))} in "
            f"{format_duration(steps[-1].done_s - steps[0].asked_s)}; waiting for data took "
            f"{percent(wait_s / whole_s if whole_s > 0 else 0.0)} of the measured time; half of "
            f"the batches took less than {step_words(typical_s, None, None)}, the longest "
            f"{step_words(longest_s, None, None)}.",
            600,
        ),
        keys=_keys(steps, near),
        note=note,
    )


def _keys(steps: Sequence[Step], near: Sequence[Step]) -> list[Key]:
    keys = [Key("wait", "waiting for data"), Key("forward", "the step itself")]
    drawn = {token for _, bars in lanes_of(steps, near) for token, _, _ in bars}
    keys += [Key(token, words) for token, words in _MAKING.items() if token in drawn]
    if any(step.worker is not None for step in steps):
        keys.append(Key("line", "nothing to do"))
    return keys


def _paint(steps: Sequence[Step], near: Sequence[Step], width: float) -> Canvas:
    lanes = lanes_of(steps, near)
    top = _HEAD_PX + _WHOLE_PX + _AXIS_PX + 26
    canvas = Canvas(width, top + _LANE_PX * len(lanes) + _AXIS_PX)
    plot_px = width - _LEFT_PX - 8
    whole = canvas.panel(_LEFT_PX, _HEAD_PX, plot_px, _WHOLE_PX)
    _paint_whole(whole, steps, near, plot_px)
    close = canvas.panel(_LEFT_PX, top, plot_px, _LANE_PX * len(lanes))
    _paint_lanes(close, lanes, near, plot_px)
    return canvas


def _paint_whole(axes: Axes, steps: Sequence[Step], near: Sequence[Step], plot_px: float) -> None:
    bins = bins_of(steps, int(plot_px / _BIN_PX))
    edges = [b.start_s for b in bins] + [steps[-1].done_s]
    waits = [b.wait for b in bins]
    tops = [min(1.0, b.wait + b.work) for b in bins]
    axes.stairs(tops, edges, baseline=waits, fill=True, color=TOKENS["forward"], linewidth=0)
    axes.stairs(waits, edges, fill=True, color=TOKENS["wait"], linewidth=0)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 1], ["0 %", "100 %"])
    time_ticks(axes.xaxis, "s", plot_px)
    axes.tick_params(axis="x", pad=9)  # below the mark of the close-up
    _name_windows(axes, steps, plot_px)
    if len(near) < len(steps):
        axes.plot([near[0].asked_s, near[-1].done_s], [-0.06, -0.06], color=TOKENS["ink"],
                  linewidth=3, clip_on=False, solid_capstyle="butt")  # fmt: skip


def _name_windows(axes: Axes, steps: Sequence[Step], plot_px: float) -> None:
    """A thin line at the beginning of each window, with its name if there is room."""
    per_px = (steps[-1].done_s - steps[0].asked_s) / plot_px
    free_from_s = steps[0].asked_s
    previous = ""
    for step in steps:
        if step.window == previous:
            continue
        previous = step.window
        axes.axvline(step.asked_s, color=TOKENS["muted"], linewidth=1, clip_on=False)
        words = clean(_WINDOW_WORDS.get(step.window, step.window), 16)
        needed_s = (len(words) * 6 + 8) * per_px
        at_s = min(step.asked_s, steps[-1].done_s - needed_s)
        if at_s >= free_from_s:
            axes.text(
                at_s + 3 * per_px, 1.08, words, fontsize=10, va="bottom", color=TOKENS["muted"]
            )
            free_from_s = at_s + needed_s


Bar = tuple[str, float, float]
"""Colour token, start and end in seconds."""


def lanes_of(steps: Sequence[Step], near: Sequence[Step]) -> list[tuple[str, list[Bar]]]:
    """The lanes of the close-up: each worker's, if the stamps tell it, and the loop's.

    A worker's lane shows its activity between the first and the last of `near`, also for later
    batches. If only the worker is known, its lane shows the loop's waits for it.
    """
    workers = sorted({s.worker for s in steps if s.worker is not None})
    lanes: list[tuple[str, list[Bar]]] = []
    begin_s, end_s = near[0].asked_s, near[-1].done_s
    made = [s for s in steps if s.made_s and s.made_s[-1] > begin_s and s.made_s[0] < end_s]
    makers: list[int | None] = [*workers] or ([None] if made else [])
    for worker in makers:
        name = "loading" if worker is None else f"worker {worker}"
        bars = [
            (token, max(start_s, begin_s), min(stop_s, end_s))
            for s in made if s.worker == worker
            for token, (start_s, stop_s) in zip(_MAKING, pairwise(s.made_s), strict=False)
            if stop_s > begin_s and start_s < end_s
        ]  # fmt: skip
        if not any(s.made_s for s in steps):
            bars = [("wait", s.asked_s, s.delivered_s) for s in near if s.worker == worker]
        lanes.append((name, bars))
    waits = [("wait", s.asked_s, s.delivered_s) for s in near]
    works = [("forward", s.delivered_s, s.done_s) for s in near]
    if workers or made:
        return [*lanes, ("the loop", [*waits, *works])]
    return [("data wait", waits), ("step", works)]


def _paint_lanes(
    axes: Axes, lanes: Sequence[tuple[str, list[Bar]]], near: Sequence[Step], plot_px: float
) -> None:
    from matplotlib.collections import PolyCollection

    begin_s, end_s = near[0].asked_s, near[-1].done_s
    per, unit = time_unit(end_s - begin_s)
    # draw at least half a pixel, so that short bars are visible
    least = (end_s - begin_s) / per / plot_px / 2
    for number, (_, bars) in enumerate(lanes):
        low, high = number - 0.36, number + 0.36
        axes.axhspan(low, high, color=TOKENS["line"], alpha=0.4, linewidth=0)
        shapes = []
        for _, start_s, stop_s in bars:
            left = (start_s - begin_s) / per
            right = max((stop_s - begin_s) / per, left + least)
            shapes.append([(left, low), (left, high), (right, high), (right, low)])
        colors = [TOKENS[token] for token, _, _ in bars]
        axes.add_collection(
            PolyCollection(shapes, facecolors=colors, edgecolors=TOKENS["surface"], linewidths=0.5)
        )
    axes.set_xlim(0, (end_s - begin_s) / per)
    axes.set_ylim(len(lanes) - 0.5, -0.5)
    axes.set_yticks(range(len(lanes)), [name for name, _ in lanes])
    axes.tick_params(axis="y", colors=TOKENS["ink"], labelsize=FONT_PX)
    time_ticks(axes.xaxis, unit, plot_px)
    title = batch_words(len(near))
    axes.set_title(f"{title} close up, from the first on", loc="left", fontsize=10,
                   color=TOKENS["muted"], pad=5)  # fmt: skip


def batch_words(count: int) -> str:
    """`1 batch`, `24 batches`."""
    return "1 batch" if count == 1 else f"{format_count(count)} batches"
