"""What a report knows about one run: everything in its folder, and what follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctrkit.core.config import RunSizes, Watch, encode
from ctrkit.core.epochs import EpochRow, OddValue
from ctrkit.core.files import finite
from ctrkit.core.plugins import Plugin
from ctrkit.core.progress import Progress
from ctrkit.core.records import (
    Recommendation,
    RunInfo,
    TrialRecord,
)
from ctrkit.core.registry import plugin_of, plugin_of_columns
from ctrkit.core.run_time import RunTime, measured_time
from ctrkit.core.runs import info_json
from ctrkit.report.epoch_figures import best_words, epoch_notes
from ctrkit.supervise.ledger import LedgerRow, totals

UNKNOWN = "an unknown workload"
"""The workload target of a run whose `run.json` is lost."""

DIED = "died"
"""The status of a run that is marked as running but whose process is gone."""

ELSEWHERE = "not known here"
"""The status of a run that is marked as running on another host or in another container."""


@dataclass(frozen=True, kw_only=True)
class RunContents:
    """Everything that a report needs of one run folder.

    Attributes:
        progress: the loop's last progress.
        silent_s: seconds since then; None if unknown.
        alive: whether its process still runs. `info.status` is DIED if it should but does not, and
            ELSEWHERE if that cannot be known.
        missing: a sentence for each file that should be there and is missing or unreadable.
        odd: values in `epochs.csv` that are no numbers.
    """

    path: Path
    info: RunInfo
    trials: list[TrialRecord]
    recommendation: Recommendation | None
    epochs: list[EpochRow]
    incidents: list[dict[str, Any]]
    progress: Progress | None
    silent_s: float | None
    alive: bool
    has_checkpoint: bool
    missing: tuple[str, ...]
    ledger: tuple[LedgerRow, ...] = ()
    odd: tuple[OddValue, ...] = ()

    @property
    def epoch_notes(self) -> tuple[str, ...]:
        """Notes on the figures of its epochs, a sentence each."""
        return tuple(epoch_notes(self.epochs, self.odd, self.watch))

    @property
    def plugin(self) -> Plugin:
        """The plug-in that knows its workload's metrics and other runs."""
        if self.info.workload.target == UNKNOWN:
            return plugin_of_columns(name for row in self.epochs for name in row)
        return plugin_of(self.info.workload.target)

    @property
    def watch(self) -> Watch | None:
        """The metric that decides on best.pt and patience."""
        return self.info.watch or self.plugin.watch

    @property
    def best(self) -> tuple[str, str, str] | None:
        """The watched metric's name, its best value, and in which epoch; None without one."""
        return best_words(self.plugin, self.watch, self.epochs)

    @property
    def whole_epochs(self) -> list[EpochRow]:
        """The epochs that were not cut, with their times."""
        return [
            row for row in self.epochs
            if row["wall_s"] is not None and not is_partial(row, self.info.sizes)
        ]  # fmt: skip

    @property
    def measured_time(self) -> RunTime | None:
        """The run time at the mean pace of its whole epochs; None without any."""
        return measured_time([row["wall_s"] or 0.0 for row in self.whole_epochs])


def is_partial(row: EpochRow, sizes: RunSizes | None) -> bool:
    """Whether the epoch was cut short (`--max-steps`): its time is not that of a whole one."""
    rows, whole = row.get("rows"), sizes.train_rows if sizes else None
    return rows is not None and whole is not None and rows < whole


def contents_json(contents: RunContents) -> dict[str, Any]:
    """The run as JSON values; `time` has the seconds of the ledger by category."""
    document: dict[str, Any] = finite(
        {
            "path": str(contents.path),
            "run": info_json(contents.info),
            "running": contents.alive,
            "trials": [encode(record) for record in contents.trials],
            "recommendation": (
                None if contents.recommendation is None else encode(contents.recommendation)
            ),
            "epochs": [_row_json(row, contents.odd) for row in contents.epochs],
            "incidents": contents.incidents,
            "time": totals(contents.ledger) if contents.ledger else None,
            "missing": list(contents.missing),
        }
        | ({"epoch_notes": list(contents.epoch_notes)} if contents.epoch_notes else {})
    )
    return document


def _row_json(row: EpochRow, odd: Sequence[OddValue]) -> dict[str, float | str | None]:
    """A row as JSON: odd values as their text, NaN and infinity as null."""
    texts = {
        one.column: one.text
        for one in odd
        if one.epoch == row["epoch"] and one.text not in ("nan", "inf", "-inf")
    }
    return {**row, **texts}
