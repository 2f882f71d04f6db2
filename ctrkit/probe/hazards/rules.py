"""Finds the rules that a cell meets: configurations known to hang or crash, with references.

Only two kinds of rule refuse a cell: workers forked beside MPS that ctrkit's own step uses, and
more memory than there is. For everything else, the cell is run with a warning or a note, because
what a user's loader does in its workers cannot be known from outside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from ctrkit.core.checkup import LEVELS, Hazard, HazardFinding
from ctrkit.core.config import Cell
from ctrkit.probe.hazards.facts import HazardFacts
from ctrkit.probe.hazards.fork_rules import FORK_RULES
from ctrkit.probe.hazards.limit_rules import LIMIT_RULES
from ctrkit.probe.hazards.spawn_rules import SPAWN_RULES
from ctrkit.probe.hazards.system_rules import SYSTEM_RULES

Rule = Callable[[Cell, HazardFacts], Iterator[Hazard]]
RULES: tuple[Rule, ...] = (*FORK_RULES, *LIMIT_RULES, *SPAWN_RULES, *SYSTEM_RULES)


def hazards_of(cell: Cell, facts: HazardFacts | None = None) -> list[Hazard]:
    """The rules that a cell meets: refusals first, then warnings, then notes."""
    known = HazardFacts() if facts is None else facts
    found = [hazard for rule in RULES for hazard in rule(cell, known)]
    return sorted(found, key=lambda hazard: LEVELS.index(hazard.level))


def refusal(cell: Cell, facts: HazardFacts | None = None) -> Hazard | None:
    """The rule that refuses this cell; None if it may run."""
    return next((h for h in hazards_of(cell, facts) if h.refuses), None)


def findings_of(cells: Iterable[Cell], facts: HazardFacts) -> list[HazardFinding]:
    """The hazards of all cells, each once with its cells; refusals first."""
    met: dict[tuple[str, str], list[tuple[Cell, Hazard]]] = {}
    for cell in cells:
        for hazard in hazards_of(cell, facts):
            met.setdefault((hazard.level, hazard.name), []).append((cell, hazard))
    found = [
        HazardFinding(
            hazard=max(pairs, key=lambda pair: _load(pair[0]))[1],
            cells=tuple(cell for cell, _ in pairs),
        )
        for pairs in met.values()
    ]
    return sorted(found, key=lambda finding: LEVELS.index(finding.hazard.level))


def _load(cell: Cell) -> tuple[int, int]:
    """Sort key for a cell's weight: its workers, then the rows that it has in flight."""
    return cell.workers, cell.workers * (cell.prefetch or 0) * cell.batch_size


def warning_lines(cells: Sequence[Cell], facts: HazardFacts) -> tuple[str, ...]:
    """A short line for each warning that these cells meet."""
    return tuple(
        f"warning, {finding.hazard.name}: {finding.hazard.text}"
        for finding in findings_of(cells, facts)
        if finding.hazard.level == "warning"
    )
