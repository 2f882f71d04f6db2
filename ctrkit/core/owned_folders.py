"""Temporary folders with their owner's name in them, so that what a killed process left goes.

A process that SIGKILL ends cannot remove its folder. The next one does, if the folder is of the
same user and its owner is known to be gone.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ctrkit.core.environment import began_unix_s
from ctrkit.core.errors import UsageError
from ctrkit.core.files import read_json, write_json
from ctrkit.core.place import Sight, sight_of, this_place

_OWNER = "owner.json"
#: Two readings of the moment at which a process began differ by less than this.
_SAME_S = 2.0


@contextmanager
def owned_folder(prefix: str) -> Iterator[Path]:
    """A new temporary folder, removed at the end; it names this process as its owner."""
    with tempfile.TemporaryDirectory(prefix=prefix) as temporary:
        folder = Path(temporary)
        pid = os.getpid()
        owner = {"pid": pid, "began_unix_s": began_unix_s(pid), "place": this_place()}
        write_json(folder / _OWNER, owner)
        yield folder


def remove_left_over(prefix: str, within: Path | None = None) -> list[Path]:
    """Remove the folders with this prefix that a process left which is gone; returns them.

    A folder of another user or machine, or without an owner's name, stays.

    Args:
        prefix: begins their names.
        within: the folder they are in; the system's for temporary files if left out.
    """
    removed = []
    with suppress(OSError):
        for folder in (within or Path(tempfile.gettempdir())).glob(f"{prefix}*"):
            if _is_own(folder) and _is_gone(folder):
                shutil.rmtree(folder, ignore_errors=True)
                removed.append(folder)
    return removed


def _is_own(folder: Path) -> bool:
    """Whether it is a folder of this user, and no link to one."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()


def _is_gone(folder: Path) -> bool:
    """Whether the owner is known to have ended."""
    try:
        owner = read_json(folder / _OWNER)
    except UsageError:
        return False
    if not isinstance(owner, dict) or not isinstance(owner.get("pid"), int):
        return False
    place = owner.get("place")
    if not isinstance(place, dict) or not place:
        return False
    sight = sight_of(place)
    if sight is not Sight.HERE:
        return sight is Sight.BEFORE_BOOT
    began, now_began = owner.get("began_unix_s"), began_unix_s(owner["pid"])
    if now_began is None:
        return True
    # its id may be of another process now
    return isinstance(began, float) and abs(began - now_began) > _SAME_S
