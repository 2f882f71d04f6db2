"""Checkpoints: written whole or not at all, loaded without running any code that they contain."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ctrkit.errors import UsageError
from ctrkit.files import file_aside

VERSION = 1


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write plain values and tensors aside, flush them to disk, then rename.

    Args:
        path: the checkpoint; its folder is made where it is missing.
        state: dicts, lists, tuples, numbers, text, None and tensors only.

    Raises:
        OSError: the disk is full or cannot be written; an older checkpoint is still there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with file_aside(path) as file:
        torch.save({**state, "version": VERSION}, file)


def keep_as(path: Path, name: str) -> None:
    """Keep this checkpoint under a second name beside it, at no cost where the disk has hard links.

    Safe, since a checkpoint is never changed in place: a newer one takes over the name only.
    """
    aside, target = path.with_name(f".{name}.aside"), path.with_name(name)
    aside.unlink(missing_ok=True)
    try:
        os.link(path, aside)
    except OSError:
        shutil.copyfile(path, aside)
    os.replace(aside, target)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The state that `save_checkpoint` was given, with all tensors in CPU memory.

    Raises:
        UsageError: missing, truncated, no checkpoint of ctrkit, or one of another version.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such checkpoint; start the run anew without --resume")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError):
        raise UsageError(
            f"{path}: truncated or no checkpoint; copy an intact one (best.pt) over it, "
            "or start the run anew"
        ) from None
    version = state.get("version") if isinstance(state, dict) else None
    if version != VERSION:
        raise UsageError(
            f"{path}: checkpoint version {version}, but this ctrkit reads {VERSION}; "
            "start the run anew"
        )
    return dict(state)
