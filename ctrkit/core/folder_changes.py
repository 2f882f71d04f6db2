"""Finds the files of a folder that were made or changed between two looks at it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

#: Folders that are skipped: they are large, or other programs write into them.
_SKIPPED = {".git", ".hg", ".svn", "node_modules", "__pycache__", ".venv", "venv", ".mypy_cache"}
_MOST_FILES = 50_000


@dataclass(frozen=True)
class FolderLook:
    """The files below a folder: (size in bytes, mtime in ns) by relative path.

    `partial`: there were too many files to look at all, so changes may be missed.
    """

    files: Mapping[str, tuple[int, int]]
    partial: bool = False


@dataclass(frozen=True)
class FolderChange:
    """Files that changed between two looks: sorted relative paths."""

    made: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()


def look_at_folder(folder: Path, *, without: Path | None = None) -> FolderLook:
    """Look at the files below a folder, except below `without`; does not follow links.

    What ctrkit's own output is redirected to is left out: it grows by ctrkit's own words.
    """
    files: dict[str, tuple[int, int]] = {}
    own = _own_output()
    left_out = None if without is None else os.path.abspath(without)
    for root, folders, names in os.walk(folder):
        folders[:] = [
            name
            for name in folders
            if name not in _SKIPPED and os.path.abspath(os.path.join(root, name)) != left_out
        ]
        for name in names:
            path = os.path.join(root, name)
            try:
                status = os.lstat(path)
            except OSError:  # it has just been removed
                continue
            if (status.st_dev, status.st_ino) in own:
                continue
            if len(files) >= _MOST_FILES:
                return FolderLook(files, partial=True)
            files[os.path.relpath(path, folder)] = (status.st_size, status.st_mtime_ns)
    return FolderLook(files)


def _own_output() -> set[tuple[int, int]]:
    """Device and inode of what this process prints to."""
    own = set()
    for descriptor in (1, 2):
        try:
            status = os.fstat(descriptor)
        except OSError:  # closed
            continue
        own.add((status.st_dev, status.st_ino))
    return own


def changes_between(before: FolderLook, after: FolderLook) -> FolderChange:
    """Files made or changed between two looks; removed files are not reported."""
    made = [path for path in after.files if path not in before.files]
    changed = [
        path
        for path, look in after.files.items()
        if path in before.files and before.files[path] != look
    ]
    return FolderChange(tuple(sorted(made)), tuple(sorted(changed)))
