"""The shell commands that README and docs/ show, one by one."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@dataclass(frozen=True)
class Shown:
    """A command of a page, as words, without its comment."""

    page: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}: {shlex.join(self.words)}"


def shown_commands() -> list[Shown]:
    """Every command of a block marked `sh`; what is no `ctrkit` too, each once."""
    found: dict[Shown, None] = {}
    for page in PAGES:
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                for words in _commands(line):
                    found[Shown(page.name, words)] = None
    return list(found)


def ctrkit_commands() -> list[Shown]:
    """Those that run ctrkit, from its subcommand on."""
    found: dict[Shown, None] = {}
    for shown in shown_commands():
        words = shown.words
        if Path(words[0]).name == "ctrkit":
            found[Shown(shown.page, words[1:])] = None
        elif "ctrkit" in words and words[words.index("ctrkit") - 1] == "-m":
            found[Shown(shown.page, words[words.index("ctrkit") + 1 :])] = None
    return [shown for shown in found if shown.words]


def _commands(line: str) -> list[tuple[str, ...]]:
    """The commands of a line of shell, between `;`, `then` and `else`; redirections are cut."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";|<>")
    lexer.whitespace_split = True
    parts: list[list[str]] = [[]]
    skip = False
    for word in lexer:
        if set(word) <= set(";|") or word in ("then", "else", "fi", "if", "do", "done"):
            parts.append([])
        elif set(word) <= set("<>"):
            skip = True
        elif skip:
            skip = False
        else:
            parts[-1].append(word)
    return [tuple(part) for part in parts if part and not re.fullmatch(r"\w+=.*", part[0])]
