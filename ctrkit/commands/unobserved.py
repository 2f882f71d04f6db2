"""Finds in a script's command why the observer did not start in the script's processes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

#: Python's options that ignore PYTHONPATH (`-I`, `-E`) or do not import `sitecustomize` (`-S`).
_DEAF = "IES"
_MAKEFILES = ("GNUmakefile", "makefile", "Makefile")
#: A longer file is no shell script or Makefile.
_LONGEST_BYTES = 100_000
_SETS_PATH = re.compile(r"(?<![\w$])PYTHONPATH\s*[:?+]?=\s*(?P<value>\S*)")


def deaf_option(command: Sequence[str]) -> str | None:
    """The option that makes a Python command ignore the observer; None if it has none.

    Words after the script, or after `-m` and `-c`, belong to the script.
    """
    if not command or not Path(command[0]).name.startswith(("python", "pypy")):
        return None
    words = iter(command[1:])
    for word in words:
        if not word.startswith("-") or word.startswith(("-m", "-c", "--")):
            return None
        if word in ("-X", "-W"):
            next(words, None)
        elif letter := next((one for one in word[1:] if one in _DEAF), None):
            return f"-{letter}"
    return None


def path_set_anew(command: Sequence[str], folder: Path) -> str | None:
    """Where a command overwrites PYTHONPATH, so that the observer is not found.

    It reads the words of the command, and the shell scripts and the Makefile that it runs.

    Returns:
        The place and the line in words; None if nothing overwrites it.
    """
    for word in command:
        if _leaves_out(word):
            return f"{word!r}"
    names = [word for word in command if not word.startswith("-")]
    if command and Path(command[0]).name in ("make", "gmake"):
        names += _MAKEFILES
    for name in names:
        for number, line in enumerate(_lines_of(folder / name), 1):
            if _leaves_out(line) and not line.lstrip().startswith("#"):
                return f"{name}:{number} ({line.strip()[:80]})"
    return None


def _leaves_out(text: str) -> bool:
    """Whether a line sets PYTHONPATH without keeping its previous value."""
    found = _SETS_PATH.search(text)
    return found is not None and "PYTHONPATH" not in found["value"]


def _lines_of(path: Path) -> list[str]:
    """The lines of a shell script or Makefile; empty for any other file."""
    try:
        if path.suffix == ".py" or not path.is_file() or path.stat().st_size > _LONGEST_BYTES:
            return []
        return path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []


def why_unobserved(command: Sequence[str], folder: Path) -> str:
    """What keeps the observer out, in words; empty if nothing was found."""
    if option := deaf_option(command):
        return f"python {option} keeps the observer out"
    if place := path_set_anew(command, folder):
        return (
            f"{place} sets PYTHONPATH anew, which keeps the observer out: add what it was, as in "
            "PYTHONPATH=.:$PYTHONPATH"
        )
    return ""
