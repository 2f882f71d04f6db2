"""The command of a script: finds its placeholders, and puts a cell's values in."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from ctrkit.core.config import Cell, ScriptSpec

#: Axes that a command can name as `{workers}`, so that a script's own flag gets the value.
PLACEHOLDERS = ("workers", "batch_size", "device", "prefetch", "start_method", "nproc")
#: What the observer inside a script can change where no placeholder names it.
PUT_IN = ("workers", "start_method", "prefetch", "persistent", "pin")

_PLACEHOLDER = re.compile(r"\{(" + "|".join(PLACEHOLDERS) + r")\}")
_SECRET = re.compile(r"token|secret|passw|credential|api[-_]?key|access[-_]?key", re.IGNORECASE)
HIDDEN = "<hidden>"


def placeholders_of(command: Sequence[str]) -> tuple[str, ...]:
    """The axes that the words of a command name, each once, in their order."""
    found = [match for word in command for match in _PLACEHOLDER.findall(word)]
    return tuple(dict.fromkeys(found))


def filled(command: Sequence[str], cell: Cell) -> list[str]:
    """The words of the command with the cell's values in place of the placeholders.

    Without workers, `{prefetch}` is 2 and `{start_method}` is `spawn`: a script's own flag wants
    some value, and ignores it then.
    """
    otherwise = {"prefetch": 2, "start_method": "spawn"}

    def value(match: re.Match[str]) -> str:
        own = getattr(cell, match[1])
        return str(otherwise[match[1]] if own is None else own)

    return [_PLACEHOLDER.sub(value, word) for word in command]


def without_secrets(words: Sequence[str]) -> list[str]:
    """The words; hidden are the values of `--api-key` and its like, `TOKEN=...`, `--env K=...`."""
    shown: list[str] = []
    hide_next = False
    for word in words:
        name, equals, _ = word.partition("=")
        if hide_next and not word.startswith("-"):
            shown.append(HIDDEN)
        elif equals and (_SECRET.search(name) or (shown and shown[-1] == "--env")):
            shown.append(f"{name}={HIDDEN}")
        else:
            shown.append(word)
        hide_next = not equals and word.startswith("-") and bool(_SECRET.search(word))
    return shown


def shown_script(script: ScriptSpec) -> ScriptSpec:
    """The script as it may be written down: without secrets in its command or its environment."""
    environment = dict.fromkeys(script.environment, HIDDEN)
    return replace(script, command=without_secrets(script.command), environment=environment)
