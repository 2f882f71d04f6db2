"""What can still be changed about a loader, so that no advice names an option that cannot help."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from ctrkit.core.config import Cell


@dataclass(frozen=True, kw_only=True)
class Leeway:
    """What the probe knows about other configurations.

    Args:
        axes: axes that the workload heeds; None: all of them.
        loaders: loaders that it has; None: all of them.
        tried: worker counts whose cells were really run without failure.
        predicted: worker counts that were not run, and are predicted to be no faster.
        promising: worker counts that were not run, and are predicted to be faster.
        failed: worker counts whose cells failed, with the verdict.
        repeats: whether cells with workers train on another epoch.
        idle: why the loader did not start the workers that it was asked for; else empty.
        other_cores: cores that other processes used meanwhile; None if unknown.
    """

    axes: Collection[str] | None = None
    loaders: Collection[str] | None = None
    tried: Collection[int] = ()
    predicted: Collection[int] = ()
    promising: Collection[int] = ()
    failed: Mapping[int, str] = field(default_factory=dict)
    repeats: bool = False
    idle: str = ""
    other_cores: float | None = 0.0

    def heeds(self, axis: str) -> bool:
        """Whether the workload heeds an axis."""
        return self.axes is None or axis in self.axes

    def has(self, loader: str) -> bool:
        """Whether the workload has a loader."""
        return self.loaders is None or loader in self.loaders

    def may_gain_by_workers(self, cell: Cell) -> bool:
        """Whether more workers than the cell's may help: nothing known speaks against them."""
        ignored = not self.heeds("workers") or bool(self.idle)
        return not ignored and not self.repeats and not self._more(cell)

    def _more(self, cell: Cell) -> list[int]:
        """Worker counts above the cell's about which something is known."""
        known = (*self.tried, *self.predicted, *self.promising, *self.failed)
        return sorted({n for n in known if n > cell.workers})

    def workers_words(self, cell: Cell) -> str:
        """Why more workers are not advised; empty if they are."""
        if not self.heeds("workers"):
            return "it takes no number of workers: give it a parameter `workers` for its DataLoader"
        if self.idle:
            return self.idle
        if self.repeats:
            return "more workers do not help as long as they change the epoch"
        more = self._more(cell)
        failed = [n for n in more if n in self.failed]
        promising = [n for n in more if n in self.promising]
        if failed and not promising:
            return f"more workers do not help until it is clear why {self._failed_words(failed[0])}"
        parts = []
        if tried := [n for n in more if n in self.tried]:
            parts.append(
                f"more workers ({_listed(tried)}) were tried and were not measurably faster"
            )
        if promising:
            parts.append(
                f"{_listed(promising)} workers are predicted to be faster, but were not fully "
                "measured: give a longer --budget"
            )
        if failed:
            parts.append(self._failed_words(failed[0]))
        predicted = [n for n in more if n in self.predicted]
        if predicted and not parts:
            parts.append(
                f"more workers ({_listed(predicted)}) were not run, but are predicted to be no "
                "faster"
            )
        return "; ".join(parts)

    def _failed_words(self, workers: int) -> str:
        count = "1 worker" if workers == 1 else f"{workers} workers"
        return f"{count} failed ({self.failed[workers]})"


def _listed(counts: Collection[int]) -> str:
    return ", ".join(map(str, counts))


#: For a workload about which nothing is known: everything can be changed.
ANYTHING = Leeway()
