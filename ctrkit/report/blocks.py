"""The blocks that a report is made of: views build them, the three outputs render them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

WORTH_A_GAP = 2
Tone = Literal["plain", "good", "warning", "bad", "dim"]


@dataclass(frozen=True)
class Column:
    """A column of a table.

    If room is short, the table uses the heading `short`; if that is not enough, it drops the column
    with the highest `optional` first (0 is never dropped). Up to WORTH_A_GAP, columns move closer
    together before one is dropped.
    """

    name: str
    short: str = ""
    right: bool = True
    optional: int = 0


@dataclass(frozen=True)
class Table:
    """A table of texts that are ready to show; `tones` has one tone per row, or is empty."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    tones: tuple[Tone, ...] = ()

    def without_empty_columns(self) -> Table:
        """The same table without empty columns."""
        kept = [i for i in range(len(self.columns)) if any(row[i] for row in self.rows)]
        return self.only(kept)

    def only(self, kept: list[int]) -> Table:
        """The same table with only the columns at these indices."""
        return Table(
            tuple(self.columns[i] for i in kept),
            tuple(tuple(row[i] for i in kept) for row in self.rows),
            self.tones,
        )


@dataclass(frozen=True)
class Facts:
    """Pairs of a label and a value, one per line."""

    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Paragraph:
    """A sentence or more."""

    text: str
    tone: Tone = "plain"


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    items: tuple[str, ...]
    tone: Tone = "plain"


@dataclass(frozen=True)
class Code:
    """Lines to paste, exactly as they are."""

    lines: tuple[str, ...]
    language: str


Block = Table | Facts | Paragraph | Bullets | Code


@dataclass(frozen=True)
class Section:
    """A heading with its blocks."""

    heading: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Report:
    """The report on one run folder; `subtitle` says what was run, in lines."""

    title: str
    subtitle: tuple[str, ...]
    sections: tuple[Section, ...]
