"""Finds the files of a user's folder that a file imports, directly or through others.

The hazard rules must read them, too, and a fingerprint must cover them. Names are resolved as at
run time: beside the file, in the package that it belongs to, and relative to it. Files elsewhere (a
library) are not followed.
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ctrkit.core.environment import fingerprint

_LIBRARIES = ("site-packages", "dist-packages")
_MOST_FILES, _MOST_BYTES = 200, 1_000_000


@dataclass(frozen=True)
class SourceFile:
    """An imported file; `runs`: it runs when the main file is imported, and so in each worker."""

    path: Path
    text: str
    runs: bool = True


def files_of(path: Path, also_in: Path | None = None) -> list[SourceFile]:
    """The file itself, then the files of its folder that it imports, directly or indirectly.

    Args:
        path: the file.
        also_in: another folder of the user's from which modules are imported.
    """
    roots = [path.parent]
    while (roots[-1] / "__init__.py").is_file() and roots[-1].parent != roots[-1]:
        roots.append(roots[-1].parent)
    if also_in is not None and also_in not in roots:
        roots.append(also_in)
    own = _installed_in(path)
    waiting, seen = [(path, True)], {path}
    found: list[SourceFile] = []
    while waiting and len(found) < _MOST_FILES:
        file, runs = waiting.pop(0)
        text = _read(file)
        if text is None:
            continue
        found.append(SourceFile(file, text, runs))
        for name, level, at_import in _imports(_parsed(text)):
            for target in _targets(name, level, file, roots):
                if target not in seen and (own is None or target.is_relative_to(own)):
                    seen.add(target)
                    waiting.append((target, runs and at_import))
    return found


def _installed_in(path: Path) -> Path | None:
    """The file's package (or the file) if it is installed among others; else None."""
    for folder in path.parents:
        if folder.name in _LIBRARIES:
            return folder / path.relative_to(folder).parts[0]
    return None


def source_fingerprint(path: Path) -> str:
    """A fingerprint of the texts of the file and of everything that it imports from its folder."""
    files = files_of(path)
    if len(files) < 2:
        return fingerprint(files[0].text if files else "")
    return fingerprint({os.path.relpath(file.path, path.parent): file.text for file in files})


def _read(path: Path) -> str | None:
    try:
        if path.stat().st_size > _MOST_BYTES:
            return None
        return path.read_text("utf-8", errors="replace")
    except OSError:
        return None


def _parsed(text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError):
        return ast.Module(body=[], type_ignores=[])


def _imports(node: ast.AST, at_import: bool = True) -> Iterator[tuple[str, int, bool]]:
    """Imported names: dotted name, level, and whether importing the file runs the import.

    `from a import b` yields `a` and `a.b`, since b may be a module.
    """
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((alias.name, 0, at_import) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            module = child.module or ""
            yield module, child.level, at_import
            for alias in child.names:
                yield f"{module}.{alias.name}".lstrip("."), child.level, at_import
        else:
            yield from _imports(child, at_import and not _runs_later(child))


def _runs_later(node: ast.AST) -> bool:
    """Whether the code inside this node does not run when the file is imported."""
    if isinstance(node, ast.If):
        names = {part.id for part in ast.walk(node.test) if isinstance(part, ast.Name)}
        return bool(names & {"__name__", "TYPE_CHECKING"})
    return isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))


def _targets(name: str, level: int, importer: Path, roots: list[Path]) -> Iterator[Path]:
    """The files that importing this name runs: each package's `__init__.py`, and the module."""
    parts = [part for part in name.split(".") if part]
    if level == 0 and parts and parts[0] in sys.stdlib_module_names:
        return
    bases = roots if level == 0 else [importer.parents[min(level, len(importer.parents)) - 1]]
    for base in bases:
        files = [
            file
            for count in range(1, len(parts) + 1)
            for file in _module_files(base.joinpath(*parts[:count]))
        ]
        if files:
            yield from files
            return


def _module_files(place: Path) -> Iterator[Path]:
    for file in (place.with_name(f"{place.name}.py"), place / "__init__.py"):
        if file.is_file():
            yield file
            return
