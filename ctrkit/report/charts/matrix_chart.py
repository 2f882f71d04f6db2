"""Chart of the matrix as a heat map: a tile per cell, with its speed or failure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ctrkit.core.cell import AXES, Cell, axes_of
from ctrkit.core.records import Recommendation, TrialRecord
from ctrkit.core.units import format_significant
from ctrkit.report.charts.svg import FONT_PX, TOKENS, Canvas, Chart, Key, draw, fitting, text_px
from ctrkit.report.matrix_view import (
    NOT_RUN,
    CellResult,
    axis_words,
    cell_results,
    has_figures,
    varying_axes,
)
from ctrkit.report.words import clean, plural, rate_words, step_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# A column stands for how batches are read in parallel, a row for everything else.
_COLUMN_AXES = ("workers", *(row.name for row in AXES.values() if row.of_workers))
_MOST_ROWS, _MOST_COLUMNS = 24, 10
_ROW_PX, _HEAD_PX, _GAP_PX, _CORNER_PX = 52.0, 44.0, 3.0, 7.0
_MOST_TILE_PX, _ROOMY_PX = 170.0, 96.0
# Bold letters are wider by this factor.
_BOLD = 1.12
_HEATS = 5


@dataclass(frozen=True)
class Tile:
    """A cell in the grid: its speed and step, or its verdict without details.

    `heat` is its colour, `faint` marks a cell that was not run, `brief` is for little room.
    """

    row: int
    column: int
    text: str
    detail: str
    heat: str
    failed: bool = False
    faint: bool = False
    best: bool = False
    brief: str = ""


@dataclass(frozen=True)
class Grid:
    """The tiles with names of rows and columns; for `left_out` cells there was no room."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    tiles: tuple[Tile, ...]
    left_out: int


def heat_map(
    trials: Sequence[TrialRecord], recommendation: Recommendation | None, prefix: str = "run"
) -> Chart | None:
    """The heat map; None where there are no cells."""
    results = cell_results(trials)
    if not results:
        return None
    grid = grid_of(results, recommendation.cell if recommendation else None)
    keys = [Key("heat-4", "fastest"), Key("heat-0", "half as fast or slower")]
    keys = keys if any(t.heat.startswith("heat") for t in grid.tiles) else []
    if any(tile.best for tile in grid.tiles):
        keys.append(Key("accent", "recommended", "outline"))
    if any(tile.failed for tile in grid.tiles):
        keys.append(Key("bad", "failed", "outline"))
    if any(tile.faint for tile in grid.tiles):
        keys.append(Key("muted", "predicted or not run", "dashed"))
    has_numbers = any(tile.detail for tile in grid.tiles)
    note = "Rows per second, and the time of a batch." if has_numbers else ""
    if grid.left_out:
        note += f" {plural(grid.left_out, 'cell')} found no room here; the table has all."
    return draw(
        f"{prefix}-matrix",
        lambda width: _paint(grid, width),
        title="All cells",
        alt=_alt(results, recommendation),
        keys=keys,
        note=note.strip(),
    )


def grid_of(results: Sequence[CellResult], best: Cell | None) -> Grid:
    """A place for each result. No two cells share one, since every axis names a row or column."""
    cells = [result.record.cell for result in results]
    axes = set(varying_axes(cells))
    always = ("device", "loader")
    names = [row.name for row in axes_of(type(cells[0]) if cells else Cell)]
    row_axes = [a for a in names if a not in _COLUMN_AXES and (a in axes or a in always)]
    # without workers, these axes are empty; only differences among workers name a column
    working = varying_axes([cell for cell in cells if cell.workers])
    column_axes = ["workers", *(a for a in _COLUMN_AXES[1:] if a in working)]
    # results start with the fastest, so a row is placed by its first cell
    rows = list(dict.fromkeys(_values(cell, row_axes) for cell in cells))[:_MOST_ROWS]
    columns = sorted(dict.fromkeys(_values(cell, column_axes) for cell in cells), key=_by_workers)
    columns = columns[:_MOST_COLUMNS]
    # cells that were only predicted do not set the scale
    ran = [result for result in results if has_figures(result.record)]
    fastest = max((_rate(result) for result in ran or results), default=0.0)
    tiles, left_out = [], 0
    for result in results:
        cell = result.record.cell
        row, column = _values(cell, row_axes), _values(cell, column_axes)
        if row not in rows or column not in columns:
            left_out += 1
            continue
        tiles.append(_tile(result, rows.index(row), columns.index(column), fastest, cell == best))
    return Grid(
        rows=tuple(_row_name(row, row_axes) for row in rows),
        columns=tuple("\n".join(_column_lines(column, column_axes)) for column in columns),
        tiles=tuple(tiles),
        left_out=left_out,
    )


def _values(cell: Cell, axes: Sequence[str]) -> tuple[str, ...]:
    return tuple(axis_words(cell, axis) for axis in axes)


def _by_workers(values: tuple[str, ...]) -> tuple[int, tuple[str, ...]]:
    return int(values[0]), values[1:]


def _row_name(values: tuple[str, ...], axes: Sequence[str]) -> str:
    named = []
    for axis, value in zip(axes, values, strict=True):
        if axis == "loader" and value == "own":
            value = "own loader"
        prefix = {
            "threads": "threads ",
            "batch_size": "batch ",
            "nproc": "processes ",
            "pin": "pin ",
        }
        if value:
            is_flag = value in ("yes", "no")  # `yes` or `no` says nothing alone
            named.append(prefix.get(axis, f"{axis} " if is_flag else "") + value)
    return " ".join(named)


def _column_lines(values: tuple[str, ...], axes: Sequence[str]) -> list[str]:
    """The number of workers, and below it what else distinguishes the column."""
    named = {"prefetch": "prefetch ", "persistent": "kept "}
    pairs = zip(axes[1:], values[1:], strict=True)
    return [values[0], " ".join(named.get(axis, "") + value for axis, value in pairs if value)]


def _rate(result: CellResult) -> float:
    return (result.record.rows_per_s or 0.0) if _shows_numbers(result) else 0.0


def _shows_numbers(result: CellResult) -> bool:
    return not result.failed or has_figures(result.record)


def _tile(result: CellResult, row: int, column: int, fastest: float, is_best: bool) -> Tile:
    record = result.record
    if result.verdict in NOT_RUN or (result.failed and not has_figures(record)):
        return Tile(
            row, column, clean(result.verdict, 14), "", "surface",
            failed=result.failed, faint=not result.failed, best=is_best,
            brief=clean(result.verdict.rpartition("-")[2], 14),
        )  # fmt: skip
    rate = _rate(result)
    share = rate / fastest if fastest > 0 else 0.0
    level = min(_HEATS - 1, max(0, int((share - 0.5) * 2 * _HEATS)))
    step = step_words(record.step_s, None, None)
    return Tile(
        row, column, rate_words(record.rows_per_s) or step,
        clean(result.verdict, 14) if result.failed else step,
        f"heat-{level}", failed=result.failed, faint=not has_figures(record), best=is_best,
        brief=_brief(rate),
    )  # fmt: skip


def _brief(rate: float) -> str:
    """`64.4k`: three digits of a rate."""
    return f"{format_significant(rate / 1000)}k" if rate >= 999.5 else f"{rate:.3g}"


def _paint(grid: Grid, width: float) -> Canvas:
    left = min(text_px(grid.rows) + 16, width * 0.3)
    tile_px = min(_MOST_TILE_PX, (width - left - 3) / len(grid.columns))
    canvas = Canvas(width, _HEAD_PX + _ROW_PX * len(grid.rows) + 4)
    axes = canvas.panel(left, _HEAD_PX, tile_px * len(grid.columns), _ROW_PX * len(grid.rows))
    axes.grid(visible=False)
    axes.set_xlim(-0.5, len(grid.columns) - 0.5)
    axes.set_ylim(len(grid.rows) - 0.5, -0.5)
    axes.set_yticks(range(len(grid.rows)), [fitting(row, left - 10) for row in grid.rows])
    axes.set_xticks([])
    axes.tick_params(axis="y", colors=TOKENS["ink"], labelsize=FONT_PX, pad=10)
    has_details = any("\n" in name.strip() for name in grid.columns)
    for number, name in enumerate(grid.columns):
        count, _, how = name.partition("\n")
        workers = plural(int(count), "worker") if tile_px >= _ROOMY_PX else count
        low, high = (-0.62, -0.92) if has_details else (-0.62, -0.62)
        axes.text(number, high, workers, ha="center", va="bottom", color=TOKENS["ink"])
        axes.text(number, low, fitting(how, tile_px, 10), ha="center", va="bottom", fontsize=10,
                  color=TOKENS["muted"])  # fmt: skip
    for tile in grid.tiles:
        _paint_tile(axes, tile, tile_px)
    return canvas


def _paint_tile(axes: Axes, tile: Tile, tile_px: float) -> None:
    from matplotlib.patches import FancyBboxPatch

    gap_x, gap_y = _GAP_PX / tile_px, _GAP_PX / _ROW_PX
    # the border shows the kind of tile: best, failed, only predicted, or measured
    edge, line, width = (
        ("accent", "solid", 2.5) if tile.best
        else ("bad", "solid", 1.5) if tile.failed
        else ("muted", (0, (3, 3)), 1.0) if tile.faint
        else ("heat-4", "solid", 1.0)
    )  # fmt: skip
    box = FancyBboxPatch(
        (tile.column - 0.5 + gap_x, tile.row - 0.5 + gap_y), 1 - 2 * gap_x, 1 - 2 * gap_y,
        boxstyle=f"round,pad=0,rounding_size={_CORNER_PX / tile_px}",
        mutation_aspect=tile_px / _ROW_PX, facecolor=TOKENS[tile.heat], edgecolor=TOKENS[edge],
        linewidth=width, linestyle=line, clip_on=False,
    )  # fmt: skip
    axes.add_patch(box)
    color = "ink" if tile.detail else "bad" if tile.failed else "muted"
    shows_detail = bool(tile.detail) and text_px([tile.detail], 10) <= tile_px - _GAP_PX
    axes.text(
        tile.column, tile.row - (0.14 if shows_detail else 0), _tile_words(tile, tile_px),
        ha="center", va="center", fontsize=FONT_PX if tile_px >= _ROOMY_PX else 11,
        color=TOKENS[color], fontweight="bold" if tile.best or tile.failed else "normal",
    )  # fmt: skip
    if shows_detail:
        mark = "✕ " if tile.failed else ""
        axes.text(tile.column, tile.row + 0.2, mark + tile.detail, ha="center", va="center",
                  fontsize=10, color=TOKENS["ink"])  # fmt: skip


def _tile_words(tile: Tile, tile_px: float) -> str:
    """The speed, or the verdict with its mark; shortened, or only the mark, for lack of room."""
    mark = ("✕" if tile.failed else "–") if not tile.detail else ""
    for words in (tile.text, tile.brief):
        marked = f"{mark} {words}".strip()
        if text_px([marked], FONT_PX * _BOLD) <= tile_px - 2 * _GAP_PX:
            return marked
    return mark or tile.brief


def _alt(results: Sequence[CellResult], recommendation: Recommendation | None) -> str:
    counts: dict[str, int] = {}
    for result in results:
        verdict = clean(result.verdict, 30)
        counts[verdict] = counts.get(verdict, 0) + 1
    words = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    best = f" Recommended: {recommendation.cell.name}." if recommendation else ""
    return clean(f"Heat map of {plural(len(results), 'cell')}: {words}.{best}", 600)
