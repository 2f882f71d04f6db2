"""Lets a real run tell its parent, through a memory map, what it could not save.

A full disk takes no new file, so the map is made before anything is trained.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

from ctrkit.core.progress import MAGIC, Slot, read_slot

UNSAVED_FILE = "unsaved.bin"
_LAYOUT = struct.Struct("<qIIqqqqdd")


@dataclass(frozen=True, kw_only=True)
class Unsaved:
    """The state of a run's checkpoints.

    Args:
        failures: tries in a row that failed; 0 while all is well, or again.
        errno: why the last of them did.
        epoch: where the loop was at the last try.
        batch: batches of that epoch which were done.
        saved_epoch: where the last good checkpoint stands; 0 without one.
        saved_batch: batches of that epoch which it has.
        again_s: until the next try.
        waits_s: how long a run that is done waits for the disk; 0 before its end.
    """

    failures: int = 0
    errno: int = 0
    epoch: int = 0
    batch: int = 0
    saved_epoch: int = 0
    saved_batch: int = 0
    again_s: float = 0.0
    waits_s: float = 0.0

    @property
    def why(self) -> str:
        """The operating system's words: `No space left on device`."""
        return os.strerror(self.errno)

    @property
    def saved_words(self) -> str:
        """What is still there of the run."""
        if not self.saved_epoch:
            return "nothing was saved yet"
        return (
            f"the last good checkpoint is kept (epoch {self.saved_epoch}, "
            f"{self.saved_batch} batches of it done)"
        )


class UnsavedWriter:
    """The loop's side; the file is created."""

    def __init__(self, path: Path) -> None:
        self._slot = Slot(path, _LAYOUT)

    def write(self, state: Unsaved) -> None:
        """Replace what is there."""
        self._slot.write(
            os.getpid(), MAGIC, state.errno, state.failures, state.epoch, state.batch,
            state.saved_epoch * 2**32 + state.saved_batch, state.again_s,
            state.waits_s,
        )  # fmt: skip


def read_unsaved(path: Path) -> Unsaved | None:
    """The newest state; None where none was written or it cannot be read."""
    try:
        found = read_slot(path, _LAYOUT)
    except OSError:
        return None
    if found is None:
        return None
    _, _, errno, failures, epoch, batch, saved, again_s, waits_s = found[1]
    return Unsaved(
        failures=failures, errno=errno, epoch=epoch, batch=batch, saved_epoch=saved >> 32,
        saved_batch=saved & (2**32 - 1), again_s=again_s, waits_s=waits_s,
    )  # fmt: skip
