"""Writes and reads checkpoints: atomic, verified, the last two kept, loaded without running code.

Their checksums are those of the zip archive that `torch.save` writes: a CRC-32 of each record, so
that nothing beside the file can get lost or disagree with it. `torch.load` does not look at them.
"""

from __future__ import annotations

import os
import pickle
import shutil
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from ctrkit.child.training.plain_state import from_plain, to_plain
from ctrkit.core.errors import UsageError
from ctrkit.core.files import file_aside

VERSION = 1
PREVIOUS = "previous.pt"


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write plain values and tensors aside, flush them to disk, then rename.

    The checkpoint that was there becomes `previous.pt`, once the new one is on the disk: whatever
    happens at whatever moment, there is a whole one, and one that can be loaded.

    Args:
        path: the checkpoint; its folder is made where it is missing.
        state: tensors, and what `to_plain` takes.

    Raises:
        OSError: the disk is full or cannot be written; both older checkpoints are still there.
        UsageError: the state could not be loaded again; both are there as well.
    """
    plain = {name: to_plain(part, name) for name, part in state.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    if hasattr(torch.serialization, "set_crc32_options"):  # a user's loop may have them off
        torch.serialization.set_crc32_options(True)
    with file_aside(path) as file:
        try:
            torch.save({**plain, "version": VERSION}, file)
        except RuntimeError as error:  # torch ends its archive all the same, and fails again
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None
        file.flush()
        os.fsync(file.fileno())
        _check_loads(Path(file.name))
        if path.is_file():
            keep_as(path, PREVIOUS)
    _sync_folder(path.parent)


def _check_loads(path: Path) -> None:
    """Check that a new file can be loaded; its tensors are mapped, and not read."""
    try:
        torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        said = " ".join(str(error).split())
        raise UsageError(
            "the state_dict() cannot be loaded again by torch.load(weights_only=True), so nothing "
            f"would be saved by it: {said[:400]}; keep plain values and tensors in it"
        ) from error


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


def remove_halves(folder: Path) -> None:
    """Remove what a process that was killed while it wrote a checkpoint has left of it."""
    for half in folder.glob(".*.pt.*"):
        half.unlink(missing_ok=True)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The state that `save_checkpoint` was given, with all tensors in CPU memory.

    Raises:
        UsageError: missing, damaged, no checkpoint of ctrkit, or one of another version.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such checkpoint; start the run anew without --resume")
    damaged = UsageError(
        f"{path}: damaged or no checkpoint; copy an intact one ({PREVIOUS}, best.pt) over it, "
        "or start the run anew"
    )
    if not _is_whole(path):
        raise damaged
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError):
        raise damaged from None
    version = state.get("version") if isinstance(state, dict) else None
    if version != VERSION:
        raise UsageError(
            f"{path}: checkpoint version {version}, but this ctrkit reads {VERSION}; "
            "start the run anew"
        )
    return {name: from_plain(part) for name, part in state.items()}


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What two identities differ in, in words; a fingerprint only where nothing else tells."""
    differing = [name for name in {**then, **now} if then.get(name) != now.get(name)]
    known = [name for name in differing if name != "workload fingerprint"] or differing
    return ", ".join(
        f"its {name} is {then.get(name)}, but this run's is {now.get(name)}" for name in known
    )


def _is_whole(path: Path) -> bool:
    """Whether every record of the archive has the checksum that it was written with."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except Exception:  # a damaged archive can raise anything, and all of it means the same
        return False


def _sync_folder(folder: Path) -> None:
    """Have the new names on the disk, too, where the system can do that."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
