"""Render a report for a terminal with rich: fits 80 columns, plain where colours are not wanted."""

from __future__ import annotations

import io
import sys
import textwrap
from collections.abc import Iterable
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from ctrkit.report.blocks import Block, Bullets, Code, Facts, Paragraph, Report, Table

_STYLES = {"plain": "", "good": "bold green", "bad": "red", "dim": "dim"}
_INDENT = 2
_LABEL_WIDTH = 15
_LEAST_WIDTH = 8


def print_report(reports: Iterable[Report], stream: TextIO | None = None) -> None:
    """Print reports one after the other; characters that the stream cannot show become `?`."""
    stream = sys.stdout if stream is None else stream
    console = Console(file=stream, highlight=False, emoji=False, markup=False)
    with console.capture() as capture:
        for number, report in enumerate(reports):
            if number:
                console.print()
            console.print(report_renderable(report, console.width))
    text = "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "replace").decode(encoding))


def report_text(report: Report, width: int = 80) -> str:
    """The report as plain text of at most `width` columns (commands to paste may be longer)."""
    file = io.StringIO()
    console = Console(
        file=file, width=width, color_system=None, highlight=False, emoji=False, markup=False
    )
    console.print(report_renderable(report, width))
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


def report_renderable(report: Report, width: int) -> RenderableType:
    """The whole report as something that rich prints."""
    parts: list[RenderableType] = [Text(report.title, style="bold")]
    parts += [Text(line) for line in report.subtitle]
    for section in report.sections:
        if section.heading:
            parts += [Text(), Text(section.heading, style="bold cyan")]
        for block in section.blocks:
            indent = 0 if isinstance(block, Code) else _INDENT
            parts.append(Padding(_render(block, width - indent), (0, 0, 0, indent), expand=False))
    return Group(*parts)


def _render(block: Block, width: int) -> RenderableType:
    match block:
        case Paragraph():
            return Text(block.text, style=_STYLES[block.tone])
        case Bullets():
            return _bullets(block)
        case Facts():
            return _facts(block)
        case Code():
            # a command must stay in one piece to be pasted, so the terminal may wrap it, not we
            lines = (f"    {line}" for line in block.lines)
            return Text("\n".join(lines), style="bold", no_wrap=True, overflow="ignore")
        case Table():
            return table_renderable(block, width)


def _bullets(block: Bullets) -> RenderableType:
    grid = RichTable.grid(padding=(0, 1, 0, 0))
    grid.add_column(width=1)
    grid.add_column(overflow="fold")
    for item in block.items:
        grid.add_row(Text("-"), Text(item, style=_STYLES[block.tone]))
    return grid


def _facts(block: Facts) -> RenderableType:
    grid = RichTable.grid(padding=(0, 2, 0, 0))
    grid.add_column(width=_LABEL_WIDTH)
    grid.add_column(overflow="fold")
    previous = ""
    for label, words in block.rows:
        grid.add_row(Text("" if label == previous else label, style="dim"), Text(words))
        previous = label
    return grid


def table_renderable(table: Table, width: int) -> RichTable:
    """The table in `width` columns: short names, then a smaller gap, then fewer columns."""
    table, names, gap = _fit(table, width)
    widths = [_column_width(table, index, name) for index, name in enumerate(names)]
    excess = sum(widths) + gap * (len(widths) - 1) - width
    if excess > 0:  # nothing more can be left out: the widest column is folded
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
        grid.add_row(*(Text(cell) for cell in row), style=_STYLES[tone])
    return grid


def _fit(table: Table, width: int) -> tuple[Table, list[str], int]:
    kept = list(range(len(table.columns)))
    while True:
        part = table.only(kept)
        long = [column.name for column in part.columns]
        short = [column.short or column.name for column in part.columns]
        for names, gap in ((long, 2), (short, 2), (short, 1)):
            if _table_width(part, names, gap) <= width:
                return part, names, gap
        optional = [i for i in kept if table.columns[i].optional]
        if not optional:
            return part, short, 1
        kept.remove(max(optional, key=lambda i: table.columns[i].optional))


def _table_width(table: Table, names: list[str], gap: int) -> int:
    widths = [_column_width(table, index, name) for index, name in enumerate(names)]
    return sum(widths) + gap * (len(widths) - 1)


def _column_width(table: Table, index: int, name: str) -> int:
    """Widest cell or longest word of the heading: headings may wrap at spaces, cells may not."""
    cells = (Text(row[index]).cell_len for row in table.rows)
    return max(1, *cells, *map(len, name.split()))
