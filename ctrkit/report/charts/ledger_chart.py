"""Chart of a real run over wall-clock time: where each minute went, and rows trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ctrkit.core.units import format_duration
from ctrkit.report.charts.scales import time_ticks, time_unit
from ctrkit.report.charts.svg import FONT_PX, TOKENS, Canvas, Chart, Key, draw
from ctrkit.report.incidents import has_moment
from ctrkit.report.ledger_view import WORDS
from ctrkit.report.words import clean, percent, rate_words
from ctrkit.supervise.ledger import LedgerRow, totals
from ctrkit.supervise.time_account import CATEGORIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LEFT_PX, _SHARES_PX, _RATE_PX, _HEAD_PX, _AXIS_PX = 58.0, 150.0, 110.0, 26.0, 34.0
_MOST_BARS = 400

# by token, its categories, from the bottom of a bar up
GROUPS: dict[str, tuple[str, ...]] = {
    "wait": ("data_wait",),
    "transfer": ("transfer",),
    "forward": ("compute",),
    "optimizer": ("optimizer",),
    "fetch": ("validation",),
    "backward": ("checkpoint",),
    "other": ("startup", "logging", "shutdown"),
    "bad": ("restart",),
    "ink": ("stopped",),
    "asleep": ("asleep",),
    "line": ("unexplained",),
}


def ledger_chart(
    rows: Sequence[LedgerRow], incidents: Sequence[Mapping[str, Any]], prefix: str = "run"
) -> Chart | None:
    """Shares of each minute, stacked, with rows per second below; None without any time.

    Args:
        rows: rows of the ledger, all sessions in order.
        incidents: marked at their time, if that lies within a row.
        prefix: start of the ids in the SVG.
    """
    rows = [row for row in rows if row.wall_s > 0]
    if not rows:
        return None
    marks = moments(rows, incidents)
    rows = merged(rows, _MOST_BARS)
    spent = totals(rows)
    wall_s = sum(row.wall_s for row in rows)
    shown = {
        token: names
        for token, names in GROUPS.items()
        if sum(spent[name] for name in names) > 5e-4 * wall_s
    }
    keys = [Key(token, _group_words(names, spent)) for token, names in shown.items()]
    if marks:
        keys.append(Key("bad", "incident", "dashed"))
    return draw(
        f"{prefix}-ledger",
        lambda width: _paint(rows, marks, width),
        title="Minute by minute",
        alt=_alt(rows, wall_s),
        keys=keys,
        note="Wall-clock time of all sessions, one after the other; below, rows trained on.",
    )


def _group_words(names: Sequence[str], spent: Mapping[str, float]) -> str:
    return ", ".join(WORDS[name] for name in names if spent[name] > 0)


def _alt(rows: Sequence[LedgerRow], wall_s: float) -> str:
    spent = totals(rows)
    most = sorted(CATEGORIES, key=lambda name: -spent[name])[:5]
    parts = [f"{WORDS[n]} {percent(spent[n] / wall_s)}" for n in most if spent[n] > 0]
    rate = sum(row.rows for row in rows) / wall_s
    return clean(
        f"Of {format_duration(wall_s)}: {', '.join(parts)}. {rate_words(rate)} rows per second.",
        1000,
    )


def moments(rows: Sequence[LedgerRow], incidents: Sequence[Mapping[str, Any]]) -> list[float]:
    """Seconds of the run's wall clock at which incidents happened, if within a row."""
    spans, begins_s = [], 0.0
    for row in rows:
        spans.append((row.ended_unix_s - row.wall_s, row.ended_unix_s, begins_s))
        begins_s += row.wall_s
    times = [_unix_s(incident.get("at")) for incident in incidents if has_moment(incident)]
    places = [_place_s(spans, unix_s) for unix_s in times if unix_s is not None]
    return sorted({place for place in places if place is not None})


def _place_s(spans: Sequence[tuple[float, float, float]], unix_s: float) -> float | None:
    """The position of a moment, which has whole seconds and so may begin in the row before."""
    for slack_s in (0.0, 1.0):
        for began_s, ended_s, begins_s in spans:
            if began_s - slack_s <= unix_s < ended_s:
                return begins_s + max(unix_s - began_s, 0.0)
    return None


def _unix_s(at: object) -> float | None:
    with suppress(TypeError, ValueError):
        return datetime.fromisoformat(at).timestamp()  # type: ignore[arg-type]
    return None


def merged(rows: Sequence[LedgerRow], most: int) -> list[LedgerRow]:
    """At most `most` rows, with neighbours added up: a bar narrower than a pixel says nothing."""
    size = -(-len(rows) // most)
    return [_sum(rows[i : i + size]) for i in range(0, len(rows), size)]


def _sum(rows: Sequence[LedgerRow]) -> LedgerRow:
    if len(rows) == 1:
        return rows[0]
    wall_s, trained = sum(row.wall_s for row in rows), sum(row.rows for row in rows)
    return replace(
        rows[-1], wall_s=wall_s, seconds=totals(rows), rows=trained, rows_per_s=trained / wall_s
    )


def _paint(rows: Sequence[LedgerRow], marks: Sequence[float], width: float) -> Canvas:
    below = _HEAD_PX + _SHARES_PX + _AXIS_PX + _HEAD_PX
    canvas = Canvas(width, below + _RATE_PX + _AXIS_PX)
    plot_px = width - _LEFT_PX - 8
    per, unit = time_unit(sum(row.wall_s for row in rows))
    edges = [0.0]
    for row in rows:
        edges.append(edges[-1] + row.wall_s / per)
    shares = canvas.panel(_LEFT_PX, _HEAD_PX, plot_px, _SHARES_PX)
    _paint_shares(shares, rows, edges)
    rates = canvas.panel(_LEFT_PX, below, plot_px, _RATE_PX)
    rates.stairs([row.rows_per_s for row in rows], edges, baseline=None,
                 color=TOKENS["accent"], linewidth=1.8)  # fmt: skip
    rates.set_ylim(0, max(max(row.rows_per_s for row in rows) * 1.15, 1e-9))
    rates.yaxis.set_major_locator(_few_ticks())
    rates.grid(axis="y", color=TOKENS["line"], linewidth=1)
    _title(rates, "Rows per second")
    for axes in (shares, rates):
        axes.grid(axis="x", visible=False)
        axes.set_xlim(edges[0], edges[-1])
        time_ticks(axes.xaxis, unit, plot_px)
        for at_s in marks:
            axes.axvline(at_s / per, color=TOKENS["bad"], linewidth=1.2, linestyle=(0, (3, 3)))
    return canvas


def _few_ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(4)


def _paint_shares(axes: Axes, rows: Sequence[LedgerRow], edges: Sequence[float]) -> None:
    base = [0.0] * len(rows)
    for token, names in GROUPS.items():
        tops = [
            low + max(0.0, sum(row.seconds.get(name, 0.0) for name in names)) / row.wall_s
            for low, row in zip(base, rows, strict=True)
        ]
        axes.stairs(tops, edges, baseline=base, fill=True, color=TOKENS[token], linewidth=0)
        base = tops
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])
    _title(axes, "Share of the time")


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=FONT_PX, color=TOKENS["ink"], pad=8)
