"""Reports how far a stage of a data preparation has got."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, kw_only=True)
class StageProgress:
    """The progress of a stage.

    Attributes:
        name: what is being done, such as `reading raw_sample.csv`.
        state: `running`, `done`, or `skipped` if an earlier process finished it.
        share: share of the stage that is done, 0 .. 1.
        rows: rows done; during a query it is estimated from the share.
        elapsed_s: wall-clock seconds of the stage.
        cpu_s: CPU seconds of the process in that time, all threads.
    """

    name: str
    state: str = "running"
    share: float = 0.0
    rows: int = 0
    elapsed_s: float = 0.0
    cpu_s: float = 0.0

    @property
    def rows_per_s(self) -> float | None:
        """Rows per second so far; None if there are none."""
        return self.rows / self.elapsed_s if self.rows and self.elapsed_s > 0 else None

    @property
    def remaining_s(self) -> float | None:
        """Seconds left at the pace so far; None if it is too early or too late to say."""
        if not 0.01 <= self.share < 0.995:
            return None
        return self.elapsed_s * (1 - self.share) / self.share


class Watcher:
    """Receives the progress of a preparation; this base class ignores it."""

    def note(self, text: str) -> None:
        """A sentence on something that happens once."""

    def stage(self, progress: StageProgress) -> None:
        """A stage began, progressed, ended or was skipped."""


class StageClock:
    """Tracks the running stage: its rows, its share, and its time.

    The share never decreases: rows and the query's own progress are estimates.

    Args:
        wall_s: returns seconds, monotonic.
        cpu_s: returns CPU seconds of this process.
    """

    def __init__(
        self,
        wall_s: Callable[[], float] = time.monotonic,
        cpu_s: Callable[[], float] = time.process_time,
    ) -> None:
        self._wall_s, self._cpu_s = wall_s, cpu_s
        self._began = wall_s(), cpu_s()
        self._of_rows = 0
        self.now = StageProgress(name="", state="done")

    def begin(self, name: str) -> StageProgress:
        """Begin another stage."""
        self._began, self._of_rows = (self._wall_s(), self._cpu_s()), 0
        self.now = StageProgress(name=name)
        return self.now

    def advance(self, rows: int, of_rows: int, *, begin: float = 0.0) -> StageProgress:
        """Note that `rows` of `of_rows` are done; the share `begin` was done before."""
        self._of_rows = of_rows
        share = begin + (1 - begin) * min(1.0, rows / of_rows) if of_rows else begin
        return self._update(rows=rows, share=max(share, self.now.share))

    def query(self, percent: float, share_of_stage: float) -> StageProgress | None:
        """Note a query's progress; it is that share of the stage. None while no stage runs."""
        if self.now.state != "running":
            return None
        share = max(self.now.share, percent / 100 * share_of_stage)
        rows = round(share * self._of_rows) if share_of_stage == 1 else 0
        return self._update(share=share, rows=max(self.now.rows, rows))

    def end(self) -> StageProgress:
        """End the stage."""
        return self._update(state="done", share=1.0)

    def _update(self, **changes: Any) -> StageProgress:
        wall_s, cpu_s = self._began
        self.now = replace(
            self.now, elapsed_s=self._wall_s() - wall_s, cpu_s=self._cpu_s() - cpu_s, **changes
        )
        return self.now
