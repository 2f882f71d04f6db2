"""Lets a real run tell its parent, through a memory map, what it could not save.

A full disk allows no new file, so the map is made before the training starts.
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
        failures: failed tries in a row; 0 while saving works.
        errno: error of the last failed try.
        epoch: epoch of the loop at the last try.
        batch: batches done of that epoch.
        saved_epoch: epoch of the last good checkpoint; 0 without one.
        saved_batch: batches of that epoch in it.
        again_s: seconds until the next try.
        waits_s: seconds that a finished run waits for the disk; 0 before its end.
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
        """The operating system's message, such as `No space left on device`."""
        return os.strerror(self.errno)

    @property
    def saved_words(self) -> str:
        """Words on what is still saved of the run."""
        if not self.saved_epoch:
            return "nothing was saved yet"
        return (
            f"the last good checkpoint is kept (epoch {self.saved_epoch}, "
            f"{self.saved_batch} batches of it done)"
        )


class UnsavedWriter:
    """Writes the state into a new file."""

    def __init__(self, path: Path) -> None:
        self._slot = Slot(path, _LAYOUT)

    def write(self, state: Unsaved) -> None:
        """Replace the state in the file."""
        self._slot.write(
            os.getpid(), MAGIC, state.errno, state.failures, state.epoch, state.batch,
            state.saved_epoch * 2**32 + state.saved_batch, state.again_s,
            state.waits_s,
        )  # fmt: skip


def read_unsaved(path: Path) -> Unsaved | None:
    """The latest state; None if none was written, or it cannot be read."""
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
