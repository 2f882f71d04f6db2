"""Warns once per session of a real run if its memory will run out before it ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime

from ctrkit.core.progress import Progress
from ctrkit.core.runs import Incident, RunFolder
from ctrkit.report.ledger_view import moment_words
from ctrkit.supervise.ledger import LedgerRow
from ctrkit.supervise.memory_end import ADVICE, memory_end

#: The verdict of such an incident in `incidents.jsonl`.
MEMORY_GROWS = "memory grows"
#: If the run's length is unknown, it warns only if the memory runs out within this time.
_SOON_S = 24 * 3600.0


class MemoryWatch:
    """Checks the ledger after each new row. It only warns, and does not end the run.

    Args:
        run: the run folder that records the incident.
        say: shows a line to the user.
    """

    def __init__(self, run: RunFolder, say: Callable[[str], None]) -> None:
        self._run, self._say, self._told = run, say, False

    def look(
        self, rows: Sequence[LedgerRow], progress: Progress | None, run_left_s: float | None
    ) -> None:
        """Warn, once, if memory runs out before the run ends.

        Args:
            rows: this session's ledger so far.
            progress: the epoch, step and stage of the run, for the incident.
            run_left_s: seconds until the expected end of the run; None if unknown.
        """
        found = None if self._told or not rows else memory_end(rows)
        if found is None or found.left_s > (_SOON_S if run_left_s is None else run_left_s):
            return
        self._told = True
        when = moment_words(rows[-1].ended_unix_s + found.left_s)
        ends = "before the run ends" if run_left_s is not None else "if the run goes on so long"
        reason = f"{found.words()}, {when}, {ends}"
        self._say(f"memory: {reason}. What to do: {ADVICE}")
        cell = self._run.info.cell
        if progress is None or cell is None:
            return
        incident = Incident(
            number=self._run.next_incident(),
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            verdict=MEMORY_GROWS,
            reason=reason,
            fix=ADVICE,
            epoch=progress.epoch,
            step=progress.step,
            stage=progress.stage.label,
            cell_before=cell,
            cell_after=cell,
            action="noted",
        )
        with suppress(OSError):  # the line was shown, and a full disk must not end the run here
            self._run.append_incident(incident)
