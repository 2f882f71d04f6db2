"""Draws what a terminal showed as docs/terminal.svg, the picture in README.

    FORCE_COLOR=1 COLUMNS=80 ctrkit report RUN > report.txt
    python docs/make_terminal.py 'ctrkit probe -- python train.py' < report.txt

It leaves out the sections and rows that README leaves out, too, and changes nothing else.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

FILE = Path(__file__).parent / "terminal.svg"
_SECTIONS = ("", "Answer", "Cells")  # the head of a report has no heading
_ROWS_LEFT_OUT = ("machine", "folder", "because", "note")
_WIDTH = 80


def shown(lines: Iterable[Text]) -> Iterator[Text]:
    """The lines of a report that the picture has."""
    heading, label = "", ""
    for number, line in enumerate(lines):
        words = line.plain
        if number and words and not words.startswith(" "):
            heading, label = words, ""
        if words[2:3].strip() or not words:
            label = words.split()[0] if words else ""
        if heading in _SECTIONS and label not in _ROWS_LEFT_OUT:
            yield line


def picture(ansi: str, command: str) -> str:
    """A terminal with the command and what it printed, as SVG."""
    console = Console(record=True, width=_WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
    for line in shown(map(Text.from_ansi, ansi.splitlines())):
        console.print(line)
    return console.export_svg(title="ctrkit", theme=MONOKAI, unique_id="ctrkit")


def main() -> None:
    """Read the report from stdin and write the picture."""
    FILE.write_text(picture(sys.stdin.read(), sys.argv[1]), "utf-8")


if __name__ == "__main__":
    main()
