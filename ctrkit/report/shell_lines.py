"""Lines for the user to paste: commands quoted for a shell, and a DataLoader call."""

from __future__ import annotations

import keyword
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ctrkit.report.words import clean

_PASTE_WIDTH = 76
# Options of `ctrkit probe` that `ctrkit train` must repeat to train the same thing.
_KEPT_OPTIONS = ("--workload", "--phase", "--data", "--set", "--epochs")


def short_path(path: Path) -> str:
    """The path relative to the working folder if it is below it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)


def short_target(target: str) -> str:
    """A workload's name; for FILE.py:NAME the file's short path, or only its name if elsewhere.

    In a report, a long path says nothing more.
    """
    file, colon, name = target.rpartition(":")
    if not colon or not file.endswith(".py"):
        return target
    path = Path(short_path(Path(file)))
    return f"{path.name if path.is_absolute() else path}:{name}"


def kept_options(argv: Sequence[str]) -> list[str]:
    """The options of a probe's command line that training must repeat.

    What follows `--` is the script's own.
    """
    kept: list[str] = []
    for position, word in enumerate(argv):
        if word == "--":
            break
        name, equals, _ = word.partition("=")
        if name not in _KEPT_OPTIONS:
            continue
        if equals:
            kept.append(word)
        elif position + 1 < len(argv):
            kept += [word, argv[position + 1]]
    return kept


def command_lines(words: Sequence[str]) -> list[str]:
    """A command quoted for a shell; one option per line if it is too long."""
    quoted = [shlex.quote(clean(word, 4096)) for word in words]
    line = " ".join(quoted)
    if len(line) <= _PASTE_WIDTH:
        return [line]
    lines = [""]
    for word in quoted:
        if word.startswith("--") and lines[-1]:
            lines[-1] += " \\"
            lines.append("   ")
        lines[-1] += f" {word}" if lines[-1] else word
    return lines


def dataloader_lines(kwargs: Mapping[str, Any]) -> list[str]:
    """`DataLoader(dataset, num_workers=2)`; one argument per line if it is too long."""
    arguments = ["dataset"]
    for name, value in kwargs.items():
        if name.isidentifier() and not keyword.iskeyword(name):
            # ASCII, so that nothing in it can control a terminal
            arguments.append(f"{name}={value!a}")
    line = f"DataLoader({', '.join(arguments)})"
    if len(line) <= _PASTE_WIDTH:
        return [line]
    return ["DataLoader(", *(f"    {argument}," for argument in arguments), ")"]
