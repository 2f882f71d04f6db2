"""The blocks that a report is made of: views build them, the three outputs render them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

WORTH_A_GAP = 2
Tone = Literal["plain", "good", "warning", "bad", "dim"]


@dataclass(frozen=True)
class Column:
    """A column of a table; `short` names it where room is short.

    Where that is not enough, the highest `optional` is left out first, 0 never. Up to WORTH_A_GAP
    it is worth setting the columns closer together.
    """

    name: str
    short: str = ""
    right: bool = True
    optional: int = 0


@dataclass(frozen=True)
class Table:
    """Cells are text, ready to be shown; `tones` has one tone per row, or is empty."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    tones: tuple[Tone, ...] = ()

    def without_empty_columns(self) -> Table:
        """The same table less the columns that say nothing."""
        kept = [i for i in range(len(self.columns)) if any(row[i] for row in self.rows)]
        return self.only(kept)

    def only(self, kept: list[int]) -> Table:
        """The same table with the columns of these indices alone."""
        return Table(
            tuple(self.columns[i] for i in kept),
            tuple(tuple(row[i] for i in kept) for row in self.rows),
            self.tones,
        )


@dataclass(frozen=True)
class Facts:
    """Pairs of a label and what is known of it, one a line."""

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
    """The report on one run folder; `subtitle` is what was run, a line each."""

    title: str
    subtitle: tuple[str, ...]
    sections: tuple[Section, ...]
