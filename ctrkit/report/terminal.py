"""Renders a report for a terminal with rich: fits 80 columns, plain without colours."""

from __future__ import annotations

import io
import sys
import textwrap
from collections.abc import Iterable
from typing import TextIO

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from ctrkit.core.plain_text import shown_on
from ctrkit.report.blocks import WORTH_A_GAP, Bullets, Code, Facts, Paragraph, Report, Table
from ctrkit.report.words import isolated

_STYLES = {"plain": "", "good": "bold green", "warning": "yellow"}
_STYLES |= {"bad": "red", "dim": "dim"}
_INDENT = 2
_LABEL_WIDTH = 15
_LEAST_WIDTH = 8


def print_report(reports: Iterable[Report], stream: TextIO | None = None) -> None:
    """Print reports one after the other, rewriting what the stream cannot show."""
    stream = sys.stdout if stream is None else stream
    console = Console(file=stream, highlight=False, emoji=False, markup=False)
    with console.capture() as capture:
        for number, report in enumerate(reports):
            if number:
                console.print()
            _print(report, console)
    text = "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"
    stream.write(shown_on(stream, text))


def report_text(report: Report, width: int = 80) -> str:
    """The report as plain text of at most `width` columns (commands to paste may be longer)."""
    file = io.StringIO()
    console = Console(
        file=file, width=width, color_system=None, highlight=False, emoji=False, markup=False
    )
    _print(report, console)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


def _print(report: Report, console: Console) -> None:
    console.print(_text(report.title, "bold"))
    for line in report.subtitle:
        console.print(_text(line))
    for section in report.sections:
        if section.heading:
            console.print()
            console.print(_text(section.heading, "bold cyan"))
        for block in section.blocks:
            if isinstance(block, Code):
                # a line to paste must stay whole: the terminal may wrap it, but we do not
                for line in block.lines:
                    console.print(Text(f"    {line}", style="bold"), soft_wrap=True)
            else:
                renderable = _render(block, console.width - _INDENT)
                console.print(Padding(renderable, (0, 0, 0, _INDENT), expand=False))


def _text(words: str, style: str = "") -> Text:
    """Text that is shown as it is, without effect on text beside it."""
    return Text(isolated(words), style=style)


def _render(block: Paragraph | Bullets | Facts | Table, width: int) -> RenderableType:
    match block:
        case Paragraph():
            return _text(block.text, _STYLES[block.tone])
        case Bullets():
            return _bullets(block)
        case Facts():
            return _facts(block)
        case Table():
            return table_renderable(block, width)


def _bullets(block: Bullets) -> RenderableType:
    grid = RichTable.grid(padding=(0, 1, 0, 0))
    grid.add_column(width=1)
    grid.add_column(overflow="fold")
    for item in block.items:
        grid.add_row(Text("-"), _text(item, _STYLES[block.tone]))
    return grid


def _facts(block: Facts) -> RenderableType:
    grid = RichTable.grid(padding=(0, 2, 0, 0))
    grid.add_column(width=_LABEL_WIDTH)
    grid.add_column(overflow="fold")
    previous = ""
    for label, words in block.rows:
        grid.add_row(_text("" if label == previous else label, "dim"), _text(words))
        previous = label
    return grid


def table_renderable(table: Table, width: int) -> RenderableType:
    """The table in `width` columns: with wrapped, then short headings, smaller gaps, fewer columns.

    A line below it explains short headings.
    """
    table, names, gap, wrap = _fit(table, width)
    widths = _column_widths(table, names, wrap)
    excess = sum(widths) + gap * (len(widths) - 1) - width
    if excess > 0:  # no more columns can be dropped, so the widest one wraps
        widest = max(range(len(widths)), key=widths.__getitem__)
        widths[widest] = max(_LEAST_WIDTH, widths[widest] - excess)
    grid = RichTable(box=None, padding=(0, gap, 0, 0), pad_edge=False, header_style="dim")
    for column, name, columns in zip(table.columns, names, widths, strict=True):
        header = Text("\n".join(textwrap.wrap(name, columns)))
        grid.add_column(
            header, justify="right" if column.right else "left", width=columns, overflow="fold"
        )
    tones = table.tones or ("plain",) * len(table.rows)
    for row, tone in zip(table.rows, tones, strict=True):
        grid.add_row(*(_text(cell) for cell in row), style=_STYLES[tone])
    legend = ", ".join(
        f"{name}: {column.name}"
        for column, name in zip(table.columns, names, strict=True)
        if name != column.name
    )
    return Group(grid, Text(legend, style="dim")) if legend else grid


def _fit(table: Table, width: int) -> tuple[Table, list[str], int, bool]:
    """The part of the table that fits: table, headings, gap, and whether headings wrap."""
    kept = list(range(len(table.columns)))
    while True:
        part = table.only(kept)
        long = [column.name for column in part.columns]
        short = [column.short or column.name for column in part.columns]
        ways = [(long, 2, False), (long, 2, True), (short, 2, True), (short, 1, True)]
        most_optional = max((column.optional for column in part.columns), default=0)
        for names, gap, wrap in ways if most_optional <= WORTH_A_GAP else ways[:-1]:
            widths = _column_widths(part, names, wrap)
            if sum(widths) + gap * (len(widths) - 1) <= width:
                return part, names, gap, wrap
        if not most_optional:
            return part, short, 1, True
        kept.remove(max(kept, key=lambda i: table.columns[i].optional))


def _column_widths(table: Table, names: list[str], wrap: bool) -> list[int]:
    """Width of each column: its widest cell or heading; for a wrapped heading, its longest word."""
    widths = []
    for index, name in enumerate(names):
        heads = [len(word) for word in name.split()] if wrap else [len(name)]
        cells = (cell_len(row[index]) for row in table.rows)
        widths.append(max(1, *heads, max(cells, default=0)))
    return widths
