"""Renders a report as Markdown for an issue, with special characters escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ctrkit.report.blocks import Block, Bullets, Code, Facts, Paragraph, Report, Table
from ctrkit.report.words import isolated

# an underscore inside a word is no markup; leaving it keeps the text readable
_ACTIVE = re.compile(r"([\\`*\[\]|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")
_AT_START = re.compile(r"^(#|=|-(?=[\s-]|$)|\+(?=\s|$)|\d+[.)](?=\s|$))")


def markdown_document(reports: Iterable[Report]) -> str:
    """The reports one after the other, separated by rules."""
    return "\n---\n\n".join(markdown_text(report) for report in reports)


def markdown_text(report: Report) -> str:
    """The report in GitHub's Markdown."""
    parts = [f"## {escape(report.title)}"]
    if report.subtitle:
        parts.append("  \n".join(escape(line) for line in report.subtitle))
    for section in report.sections:
        if section.heading:
            parts.append(f"### {escape(section.heading)}")
        parts += [_render(block) for block in section.blocks]
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """Text that Markdown and HTML show as it is: no markup, tags, links, tables, mentions."""
    text = " ".join(text.split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = _ACTIVE.sub(r"\\\1", text)
    text = text.replace("://", "&#58;//").replace("www.", "www&#46;")
    # GitHub turns these into links even if they are escaped: mentions, issues
    text = re.sub(r"(@|(?<!&)#|\bGH-)(?=\w)", "\\1\u200b", text, flags=re.IGNORECASE)
    text = isolated(text, "&#x2068;", "&#x2069;")
    return _AT_START.sub(_escape_start, text)


def _escape_start(match: re.Match[str]) -> str:
    """A character that would begin a heading, quote or list at the start of a line."""
    return f"{match[1][:-1]}\\{match[1][-1]}"


def _render(block: Block) -> str:
    match block:
        case Paragraph():
            return escape(block.text)
        case Bullets():
            return "\n".join(f"- {escape(item)}" for item in block.items)
        case Facts():
            return "\n".join(f"- **{escape(label)}**: {escape(text)}" for label, text in block.rows)
        case Code():
            return _fenced(block)
        case Table():
            return _table(block)


def _fenced(block: Code) -> str:
    longest = max((len(run) for line in block.lines for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return "\n".join([f"{fence}{block.language}", *block.lines, fence])


def _table(table: Table) -> str:
    lines = [_row(column.name for column in table.columns)]
    lines.append("|" + "|".join(" ---: " if c.right else " --- " for c in table.columns) + "|")
    lines += [_row(row) for row in table.rows]
    return "\n".join(lines)


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(escape(cell) for cell in cells) + " |"
