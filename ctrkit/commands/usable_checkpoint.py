"""Finds the checkpoint that a run can continue from, without importing torch."""

from __future__ import annotations

import os
import pickle
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ctrkit.core.errors import UsageError

#: The checkpoints of a run, in order of least loss.
NAMES = ("last.pt", "previous.pt", "best.pt")


@dataclass(frozen=True)
class SavedPosition:
    """A position: `batch` batches of epoch `epoch` (from 1) are done."""

    epoch: int
    batch: int


@dataclass(frozen=True, kw_only=True)
class SavedCheckpoint:
    """What a checkpoint tells without torch.

    Attributes:
        position: its position.
        code: versions of the code that wrote it.
        problem: why it is not the newest one; empty if it is.
    """

    position: SavedPosition
    code: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""


class _Inert(dict[Any, Any]):
    """Stands for every class and function that a checkpoint names.

    Accepts and ignores all input.
    """

    def __init__(self, *_: Any) -> None:
        super().__init__()

    def __setstate__(self, _: Any) -> None:
        """Forget it."""

    def append(self, _: Any) -> None:
        """Forget it."""

    def extend(self, _: Any) -> None:
        """Forget it."""


class _PlainValues(pickle.Unpickler):
    """Unpickles numbers and texts, and runs nothing that the pickle names."""

    def find_class(self, module: str, name: str) -> Any:
        return _Inert

    def persistent_load(self, pid: Any) -> Any:  # a tensor's storage
        return None


def inspect_checkpoint(path: Path) -> SavedCheckpoint | None:
    """What the checkpoint tells; None if it is missing, truncated, damaged or not ctrkit's."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                return None
            name = next(n for n in archive.namelist() if n.endswith("/data.pkl"))
            with archive.open(name) as file:
                state = _PlainValues(file).load()
        position = state["position"]
        return SavedCheckpoint(
            position=SavedPosition(epoch=int(position["epoch"]), batch=int(position["batch"])),
            code={str(key): str(value) for key, value in state.get("code", {}).items()},
        )
    except Exception:  # a damaged pickle can raise anything
        return None


def recover(folder: Path) -> SavedCheckpoint | None:
    """Make `last.pt` loadable, and return what it is; None if there is no checkpoint.

    A damaged `last.pt` is renamed to `last.pt.damaged`, and the newest whole checkpoint replaces
    it: `previous.pt`, else `best.pt`, which are older states of the same run.

    Raises:
        UsageError: there are checkpoints, but all are damaged; they stay unchanged.
    """
    there = [name for name in NAMES if (folder / name).exists()]
    for name in there:
        saved = inspect_checkpoint(folder / name)
        if saved is None:
            continue
        if name == NAMES[0]:
            return saved
        problem = _put_in_place(folder, name)
        return SavedCheckpoint(position=saved.position, code=saved.code, problem=problem)
    if there:
        raise UsageError(
            f"{folder}: every checkpoint is damaged ({', '.join(there)}); put a whole copy there "
            "as last.pt, or start over"
        )
    return None


def _put_in_place(folder: Path, name: str) -> str:
    """Make `name` the new `last.pt`; returns what was wrong, in words."""
    last, aside = folder / NAMES[0], folder / ".last.pt.aside"
    problem = f"{last} is missing"
    aside.unlink(missing_ok=True)
    try:
        os.link(folder / name, aside)
    except OSError:  # the disk has no hard links
        shutil.copy2(folder / name, aside)  # keep its time, since everything after it is lost
    if last.exists():
        os.replace(last, last.with_name("last.pt.damaged"))
        problem = f"{last} is damaged (kept as last.pt.damaged)"
    os.replace(aside, last)
    return f"{problem}: continuing from {name}, the one before"


def usable_checkpoint(folder: Path) -> SavedCheckpoint | None:
    """`recover` for a run that continues by itself: it begins anew if all are damaged."""
    try:
        return recover(folder)
    except UsageError:
        if (folder / NAMES[0]).exists():
            os.replace(folder / NAMES[0], folder / "last.pt.damaged")
        return None
