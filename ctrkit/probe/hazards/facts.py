"""The facts that the hazard rules decide on: the machine's limits, the workload, its source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ctrkit.core.checkup import MachineLimits
from ctrkit.core.child_records import Examination, Inspection, LoaderNeeds
from ctrkit.core.config import Cell
from ctrkit.probe.hazards.source import SourceNote


@dataclass(frozen=True, kw_only=True)
class HazardFacts:
    """What is known about machine and workload. A rule says nothing if its facts are unknown.

    Attributes:
        has_task: ctrkit runs a training step on the cell's device; otherwise there is only a
            loader.
        uses_start_method: the workload starts its workers as the cell says, not as the system does.
        examination: None if nothing was examined.
        source: notes on the workload's file.
        threads: threads in the process that starts the workers.
        threaded_libraries: libraries loaded there that start threads.
    """

    limits: MachineLimits = field(default_factory=MachineLimits)
    needs: LoaderNeeds = field(default_factory=LoaderNeeds)
    has_task: bool = True
    uses_start_method: bool = True
    examination: Examination | None = None
    source: tuple[SourceNote, ...] = ()
    threads: tuple[str, ...] = ()
    threaded_libraries: tuple[str, ...] = ()

    def start_method(self, cell: Cell) -> str | None:
        """How the cell's workers are really started; None without workers."""
        if not cell.workers or self.uses_start_method:
            return cell.start_method
        looked = self.examination.start_method if self.examination else ""
        return looked or self.limits.start_method

    def noted(self, kind: str) -> list[SourceNote]:
        """The notes of a kind on the source."""
        return [note for note in self.source if note.kind == kind]


def known_facts(
    inspection: Inspection,
    limits: MachineLimits,
    source: tuple[SourceNote, ...] = (),
    examination: Examination | None = None,
) -> HazardFacts:
    """The facts of an inspected workload; an examination knows its needs better."""
    looked = examination or Examination()
    return HazardFacts(
        limits=limits,
        needs=inspection.needs if examination is None else examination.needs,
        has_task=inspection.has_task,
        uses_start_method="start_method" in inspection.axes,
        examination=examination,
        source=source,
        threads=_all_of(inspection.threads, looked.threads),
        threaded_libraries=_all_of(inspection.threaded_libraries, looked.threaded_libraries),
    )


def _all_of(*lists: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for names in lists for name in names))
