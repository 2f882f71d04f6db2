"""Which checkpoint a run can go on from, and where that stands: read without torch."""

from __future__ import annotations

import os
import pickle
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Position:
    """`batch` batches of epoch `epoch` (from 1) are done."""

    epoch: int
    batch: int


class _Inert(dict[Any, Any]):
    """Stands for every class and function that a checkpoint names; takes whatever it is given."""

    def __init__(self, *_: Any) -> None:
        super().__init__()

    def __setstate__(self, _: Any) -> None:
        """Forget it."""

    def append(self, _: Any) -> None:
        """Forget it."""

    def extend(self, _: Any) -> None:
        """Forget it."""


class _PlainValues(pickle.Unpickler):
    """Reads the numbers and texts of a pickle and runs nothing of what it names."""

    def find_class(self, module: str, name: str) -> Any:
        return _Inert

    def persistent_load(self, pid: Any) -> Any:  # a tensor's storage
        return None


def saved_position(path: Path) -> Position | None:
    """Where the checkpoint stands; None if it is missing, truncated, damaged or none of ctrkit."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                return None
            name = next(n for n in archive.namelist() if n.endswith("/data.pkl"))
            with archive.open(name) as file:
                position = _PlainValues(file).load()["position"]
        return Position(epoch=int(position["epoch"]), batch=int(position["batch"]))
    except Exception:  # a damaged pickle can raise anything, and all of it means the same
        return None


def usable_checkpoint(folder: Path) -> Position | None:
    """Make `last.pt` one that can be loaded, and say where it stands; None if there is none.

    A damaged `last.pt` is set aside as `last.pt.damaged`, and `best.pt` takes its place where that
    is whole: an older state of the same run.
    """
    last, best = folder / "last.pt", folder / "best.pt"
    position = saved_position(last)
    if position is not None:
        return position
    if last.exists():
        os.replace(last, last.with_name("last.pt.damaged"))
    position = saved_position(best)
    if position is not None:
        aside = last.with_name(".last.pt.aside")
        shutil.copy2(best, aside)  # with its time: what came after it is lost
        os.replace(aside, last)
    return position
