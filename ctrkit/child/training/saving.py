"""Saves a run's state. If the disk refuses, training continues, and the next save tries again."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ctrkit.core.errors import UsageError
from ctrkit.core.files import is_of_disk
from ctrkit.core.unsaved import Unsaved, UnsavedWriter

Place = tuple[int, int, bool]
"""Epoch, batches done of it, and whether it only has to be validated."""


class Saving:
    """Saves state, and notes for the parent what the disk refused.

    Args:
        path: the file of the note; None for a process that writes nothing.
        again_s: seconds until the next save is due.
    """

    def __init__(self, path: Path | None, again_s: float) -> None:
        self._writer = None if path is None else UnsavedWriter(path)
        self._noted = Unsaved(again_s=again_s)

    def refused(self, path: Path, write: Callable[[], None]) -> int:
        """Call `write`; returns the errno with which the disk refused, or 0.

        Raises:
            Exception: any other error.
        """
        try:
            write()
        except OSError as error:
            if not is_of_disk(error, path):
                raise
            return error.errno or 0
        return 0

    def note(self, errno: int, now: Place, saved: Place | None) -> None:
        """Note how the last save ended, for the parent."""
        self._write(
            failures=self._noted.failures + 1 if errno else 0, errno=errno,
            epoch=now[0], batch=now[1],
            saved_epoch=saved[0] if saved else 0, saved_batch=saved[1] if saved else 0,
        )  # fmt: skip

    def waits(self, seconds: float) -> None:
        """Note that the run is done, and retries for so long to save its last state."""
        self._write(waits_s=seconds)

    def _write(self, **changes: float) -> None:
        self._noted = replace(self._noted, **changes)  # type: ignore[arg-type]
        if self._writer is not None:
            self._writer.write(self._noted)


def never_saved(path: Path, errno: int, run_folder: str, saved: Place | None) -> UsageError:
    """The error of a run whose last state the disk did not take."""
    why = f"{path}: cannot be written: {os.strerror(errno)}"
    if saved is None:
        return UsageError(
            f"{why}; nothing was saved of this run: make room, then begin it again with "
            f"ctrkit train --resume {run_folder}"
        )
    return UsageError(
        f"{why}; what was trained since the last checkpoint is not saved; what was saved before is "
        f"whole (epoch {saved[0]}, {saved[1]} batches of it done): make room, then go on with "
        f"ctrkit train --resume {run_folder}"
    )
