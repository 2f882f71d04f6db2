"""The command of a script: finds its placeholders, and puts a cell's values in."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from ctrkit.core.config import Cell, ScriptSpec

#: Axes with a placeholder such as `{workers}`, by which a script's own flag gets the value.
PLACEHOLDERS = ("workers", "batch_size", "device", "prefetch", "start_method", "nproc")
#: Axes that the observer inside a script can change without a placeholder.
PUT_IN = ("workers", "start_method", "prefetch", "persistent", "pin")

_PLACEHOLDER = re.compile(r"\{(" + "|".join(PLACEHOLDERS) + r")\}")
_SECRET = re.compile(r"token|secret|passw|credential|api[-_]?key|access[-_]?key", re.IGNORECASE)
HIDDEN = "<hidden>"


def placeholders_of(command: Sequence[str]) -> tuple[str, ...]:
    """The axes whose placeholders the command has, each once, in order."""
    found = [match for word in command for match in _PLACEHOLDER.findall(word)]
    return tuple(dict.fromkeys(found))


def filled(command: Sequence[str], cell: Cell) -> list[str]:
    """The command with the cell's values in place of the placeholders.

    Without workers, `{prefetch}` becomes 2 and `{start_method}` `spawn`: the script's flag needs
    some value, and the script ignores it.
    """
    otherwise = {"prefetch": 2, "start_method": "spawn"}

    def value(match: re.Match[str]) -> str:
        own = getattr(cell, match[1])
        return str(otherwise[match[1]] if own is None else own)

    return [_PLACEHOLDER.sub(value, word) for word in command]


def without_secrets(words: Sequence[str]) -> list[str]:
    """The words, with values of `--api-key` and the like, `TOKEN=...` and `--env K=...` hidden."""
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
    """The script without secrets in its command or environment, fit to be written down."""
    environment = dict.fromkeys(script.environment, HIDDEN)
    return replace(script, command=without_secrets(script.command), environment=environment)
