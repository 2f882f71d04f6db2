"""Reports checkpoints that could not be written while a real run continues."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from ctrkit.core.bystander import Bystander
from ctrkit.core.config import Cell
from ctrkit.core.runs import Incident, RunFolder
from ctrkit.core.units import format_duration
from ctrkit.core.unsaved import UNSAVED_FILE, Unsaved, read_unsaved

#: its verdict in `incidents.jsonl`
NOT_SAVED = "not saved"


class UnsavedWatch:
    """Watches the loop's notes on its checkpoints.

    Args:
        run: the run folder, which gets an incident per series of failures.
        child: the child's folder.
        tell: shows a line, even with --quiet.
    """

    def __init__(self, run: RunFolder, child: Path, tell: Callable[[str], None]) -> None:
        self._run, self._path, self._tell = run, child / UNSAVED_FILE, tell
        self._seen, self._next_told = Unsaved(), 1
        self._waiting: list[Incident] = []  # the disk may be too full even for this line
        self._bystander = Bystander(tell)

    def look(self, cell: Cell) -> None:
        """Report news; `cell` is the run's current cell."""
        now, before = read_unsaved(self._path), self._seen
        if now is None or now == before:
            return
        self._seen = now
        if now.waits_s and not before.waits_s and now.failures:
            self._tell(waiting_words(now, self._run.path / "checkpoints"))
        elif (
            now.failures >= self._next_told and not now.waits_s
        ):  # the first, the second, the fourth, the eighth ...
            self._next_told = 2 * now.failures
            self._tell(failed_words(now, self._run.path / "checkpoints"))
        elif before.failures and not now.failures:
            self._next_told = 1
            again = f"epoch {now.epoch}, {now.batch} batches of it done"
            self._tell(f"the checkpoint could be written again: {again}")
        if now.failures and not before.failures:
            self._waiting.append(self._incident(now, cell))
        if self._waiting:
            with self._bystander.doing("to write down that a checkpoint failed"):
                self._write_down()

    def launched(self) -> None:
        """A new child starts."""
        self._seen = Unsaved()
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Write incidents that could not be written before."""
        if self._waiting:
            with self._bystander.doing("to write down that a checkpoint failed"):
                self._write_down()

    def _write_down(self) -> None:
        while self._waiting:
            self._run.append_incident(self._waiting[0])
            del self._waiting[0]

    def _incident(self, now: Unsaved, cell: Cell) -> Incident:
        return Incident(
            number=self._run.next_incident(),
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            verdict=NOT_SAVED,
            reason=f"a checkpoint could not be written: {now.why}; {now.saved_words}",
            fix="make room on the disk of the run folder",
            epoch=now.epoch,
            step=now.batch,
            stage="checkpoint",
            cell_before=cell,
            cell_after=cell,
            action="noted",
        )


def waiting_words(now: Unsaved, folder: Path) -> str:
    """A message that a finished run waits for the disk."""
    return (
        f"WARNING: the run is done, but {folder} does not take its last state: {now.why}; "
        f"{now.saved_words}. Make room: for {format_duration(now.waits_s)} it is tried again"
    )


def failed_words(now: Unsaved, folder: Path) -> str:
    """The warning: what failed, what is still saved, and when the next try is."""
    tries = f" ({now.failures} tries in a row)" if now.failures > 1 else ""
    return (
        f"WARNING: epoch {now.epoch}, batch {now.batch}: the checkpoint could not be written to "
        f"{folder}: {now.why}{tries}. Training continues; {now.saved_words}. Make room: ctrkit "
        f"tries again in {format_duration(now.again_s)}, or at the end of the epoch"
    )
