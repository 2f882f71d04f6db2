"""Warns once per session of a real run if its training loss is NaN or infinite."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

from ctrkit.core.config import Cell
from ctrkit.core.losses import ADVICE
from ctrkit.core.progress import Progress
from ctrkit.core.runs import Incident, RunFolder

BAD_LOSS = "loss not finite"


class LossWatch:
    """Reports the first bad loss with its step, and notes an incident; the run continues.

    Args:
        run: gets the incident.
        say: shows a line.
    """

    def __init__(self, run: RunFolder, say: Callable[[str], None]) -> None:
        self._run, self._say, self._told = run, say, False

    def look(self, progress: Progress | None, cell: Cell) -> None:
        """Check the progress; call it a few times a second."""
        if self._told or progress is None or not progress.bad_epoch:
            return
        self._told = True
        reason = (
            f"the training loss is {progress.bad_loss} at step {progress.bad_step} of epoch "
            f"{progress.bad_epoch}"
        )
        self._say(f"{reason}; the run continues, but {ADVICE}")
        incident = Incident(
            number=self._run.next_incident(),
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            verdict=BAD_LOSS,
            reason=reason,
            fix=ADVICE,
            epoch=progress.bad_epoch,
            step=progress.bad_step,
            stage="step",
            cell_before=cell,
            cell_after=cell,
            action="noted",
        )
        with suppress(OSError):  # the line was shown at least
            self._run.append_incident(incident)
