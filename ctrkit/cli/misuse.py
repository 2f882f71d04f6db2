"""Says in one line what is wrong with a refused command line, and what to do."""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import Any

from ctrkit.core.units import format_value

_WANTED = {"int": "a whole number", "float": "a number"}


def misuse_words(error: Any, words: list[str]) -> str:
    """What is wrong, and what to do about it.

    Args:
        error: the parser's error.
        words: the words typed after `ctrkit`.
    """
    said, advice = _said_of(error, words).rstrip("."), _advice(error, words)
    return f"{said} {advice[0].upper()}{advice[1:]}" if said.endswith("?") else f"{said}; {advice}"


def misplaced_words(message: str, words: Sequence[str], options: Collection[str]) -> str:
    """Advice if a script refuses an option that was meant for ctrkit; empty in other cases.

    Args:
        message: how the script ended.
        words: the words typed after `ctrkit`.
        options: options of the ctrkit command.
    """
    after = words[words.index("--") + 1 :] if "--" in words else ()
    named = [word.partition("=")[0] for word in after]
    found = [one for one in named if one[:2] == "--" and one in options and one[2:] in message]
    return f"; if {found[0]} is meant for ctrkit, write it before the --" if found else ""


def _said_of(error: Any, words: list[str]) -> str:
    """What is wrong; for a value that is no number with that value, which the parser omits."""
    param = getattr(error, "param", None)
    option = next((name for name in getattr(param, "opts", ()) if name[:2] == "--"), "")
    value = _typed_value(option, words) if option else None
    for kind, wanted in _WANTED.items():
        if value is not None and re.search(rf"\b{kind}\b", _type_words(param)):
            return f"{option}: {format_value(value)} is not {wanted}"
    return str(error.format_message())


def _type_words(param: Any) -> str:
    """The name of an option's type in this or an older parser."""
    described = getattr(param, "type_descriptor", None)
    old = {"integer": "int", "float": "float"}.get(getattr(getattr(param, "type", 0), "name", ""))
    return str(getattr(described, "annotation", old))


def _typed_value(option: str, words: list[str]) -> str | None:
    """The last value typed for an option; None if there is none."""
    typed = None
    for word, after in pairwise([*words, ""]):
        if word == "--":
            break
        name, equals, value = word.partition("=")
        if name == option:
            typed = value if equals else after
    return typed


def _advice(error: Any, words: list[str]) -> str:
    """Advice: read the command's help, or write `ctrkit probe --` before a script's command."""
    group = error.ctx is not None and hasattr(error.ctx.command, "commands")
    if group and error.ctx.parent is None and _is_program(words):
        command = " ".join(words[1:] if words[0] == "--" else words)
        if command.endswith(".py") and " " not in command:
            command = f"python {command}"
        return f"for a command of your own write: ctrkit probe -- {command}"
    if error.ctx is not None:
        return f"see {error.ctx.command_path} --help"
    named = words[: 2 if words[:1] == ["data"] else 1]  # the parser knows only the words
    return f"see {' '.join(['ctrkit', *(w for w in named if w[:1] != '-')])} --help"


def _is_program(words: list[str]) -> bool:
    """Whether this can be a training command, and not a misspelt command of ctrkit."""
    first = words[1:2] if words[:1] == ["--"] else words[:1]
    return bool(first) and (shutil.which(first[0]) is not None or first[0].endswith(".py"))
