"""Writes and reads checkpoints: atomic, verified, the last two kept, loaded without running code.

The checksums are those that `torch.save` writes into its zip archive, a CRC-32 per record. So there
is no second file that could get lost or disagree. `torch.load` itself does not check them.
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
from ctrkit.child.training.worker_deaths import deaths_told_afterwards
from ctrkit.core.errors import UsageError
from ctrkit.core.files import file_aside

VERSION = 1
PREVIOUS = "previous.pt"


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write plain values and tensors to a temporary file, flush it to disk, then rename it.

    When the new checkpoint is on the disk, the one that was there becomes `previous.pt`. So at
    every moment there is a whole checkpoint that can be loaded.

    Args:
        path: the checkpoint; its folder is made if it is missing.
        state: tensors, and values that `to_plain` accepts.

    Raises:
        OSError: the disk is full or cannot be written; both older checkpoints are still there.
        UsageError: the state could not be loaded again; both older checkpoints are still there.
    """
    with deaths_told_afterwards():  # a worker's death is no fault of the state, nor of the disk
        _save(path, {name: to_plain(part, name) for name, part in state.items()})


def _save(path: Path, plain: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if hasattr(torch.serialization, "set_crc32_options"):  # a user's loop may have turned them off
        torch.serialization.set_crc32_options(True)
    with file_aside(path) as file:
        try:
            torch.save({**plain, "version": VERSION}, file)
        except RuntimeError as error:  # torch tries to finish its archive and fails again
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None
        file.flush()
        os.fsync(file.fileno())
        _check_loads(Path(file.name))
        if path.is_file():
            keep_as(path, PREVIOUS)
    _sync_folder(path.parent)


def _check_loads(path: Path) -> None:
    """Check that a new file can be loaded; memory-maps its tensors instead of reading them."""
    try:
        torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        said = " ".join(str(error).split())
        raise UsageError(
            "the state_dict() cannot be loaded again by torch.load(weights_only=True), so nothing "
            f"would be saved by it: {said[:400]}; keep plain values and tensors in it"
        ) from error


def keep_as(path: Path, name: str) -> None:
    """Keep this checkpoint under a second name beside it: a hard link if possible, else a copy.

    That is safe, because a checkpoint never changes in place: a newer one only takes over its name.
    """
    aside, target = path.with_name(f".{name}.aside"), path.with_name(name)
    aside.unlink(missing_ok=True)
    try:
        os.link(path, aside)
    except OSError:
        shutil.copyfile(path, aside)
    os.replace(aside, target)


def remove_halves(folder: Path) -> None:
    """Remove partly written checkpoints of a process that was killed while it wrote."""
    for half in folder.glob(".*.pt.*"):
        half.unlink(missing_ok=True)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Load the state that `save_checkpoint` was given, with all tensors in CPU memory.

    Raises:
        UsageError: the file is missing or damaged, is no checkpoint of ctrkit, or has another
            version.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such checkpoint; start over without --resume")
    damaged = UsageError(
        f"{path}: damaged, or not a checkpoint; copy an intact one ({PREVIOUS}, best.pt) over it, "
        "or start over"
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
            f"{path}: checkpoint version {version}, but this ctrkit reads {VERSION}; start over"
        )
    return {name: from_plain(part) for name, part in state.items()}


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """How two identities differ, in words; the fingerprint only if nothing else differs."""
    differing = [name for name in {**then, **now} if then.get(name) != now.get(name)]
    known = [name for name in differing if name != "workload fingerprint"] or differing
    return ", ".join(
        f"its {name} is {then.get(name)}, but this run's is {now.get(name)}" for name in known
    )


def _is_whole(path: Path) -> bool:
    """Whether every record of the archive matches its checksum."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except Exception:  # a damaged archive can raise anything
        return False


def _sync_folder(folder: Path) -> None:
    """Flush the folder's new names to disk, if the system can do that."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
