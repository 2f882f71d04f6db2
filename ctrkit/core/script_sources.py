"""Finds the source files of a script's command, and those edited since a probe.

These are the files that the command names (`train.py`, `conf.yaml`, the module after `-m`) and
what a Python file imports from its own folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from ctrkit.core.config import ScriptSpec
from ctrkit.core.environment import fingerprint
from ctrkit.core.imported_files import files_of

_CODE = (".py", ".sh")
_SETTINGS = (".yaml", ".yml", ".toml", ".json", ".cfg", ".ini")
_MOST_BYTES = 1_000_000


def sources_of(script: ScriptSpec) -> dict[str, str]:
    """A fingerprint of each source file's text, by its path relative to the script's folder.

    Files that cannot be read, or are too long for a source file, are left out.
    """
    folder = Path(script.folder)
    found: dict[str, str] = {}
    for path, imports_from in _named_files(script.command, folder):
        if path.suffix == ".py":
            texts = {file.path: file.text for file in files_of(path, imports_from)}
        else:
            texts = {path: text} if (text := _text(path)) is not None else {}
        found |= {os.path.relpath(file, folder): fingerprint(text) for file, text in texts.items()}
    return found


def settled(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str]:
    """The fingerprints from before a probe, without files that the probed script writes itself.

    If code changed during the probe, somebody edited it; a `.json` that changed is likely an
    output.
    """
    return {
        name: text
        for name, text in before.items()
        if after.get(name) == text or name.endswith(_CODE)
    }


def edited_since(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Names of the files whose text has changed since, or that are gone."""
    return [name for name, text in before.items() if now.get(name) != text]


def _named_files(words: list[str], folder: Path) -> Iterator[tuple[Path, Path | None]]:
    """Files that the command names, each with another folder that it imports from, or None."""
    for i, word in enumerate(words):
        if i and words[i - 1] == "-m":
            place = folder.joinpath(*word.split("."))
            packages = [place, *place.parents[: word.count(".")]]
            for path in (
                place.with_name(f"{place.name}.py"), place / "__main__.py",
                *(package / "__init__.py" for package in packages),
            ):  # fmt: skip
                if path.is_file():
                    yield path, folder
        for name in {word, word.rpartition("=")[2]} - {""}:
            path = folder / name
            if path.suffix in (*_CODE, *_SETTINGS) and path.is_file():
                yield path, None
            elif (path / "__main__.py").is_file():
                yield path / "__main__.py", None


def _text(path: Path) -> str | None:
    try:
        if path.stat().st_size > _MOST_BYTES:
            return None
        return path.read_text("utf-8", errors="replace")
    except OSError:
        return None
