"""`ctrkit doctor -- COMMAND`: runs a script up to its first steps, and says what would go wrong."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from ctrkit.commands.doctor import show, stage_allowances
from ctrkit.commands.options import Axes, CommonOptions
from ctrkit.commands.unobserved import why_unobserved
from ctrkit.core.checkup import Checkup, Hazard, HazardFinding
from ctrkit.core.child_files import load_seen
from ctrkit.core.child_records import Examination
from ctrkit.core.config import SCRIPT_TARGET, Cell, ChildSpec, ScriptSpec, WorkloadSpec, make_cell
from ctrkit.core.environment import describe_environment
from ctrkit.core.errors import InconclusiveError, InterruptedRunError, NoViableCellError
from ctrkit.core.owned_folders import owned_folder, remove_left_over
from ctrkit.core.script_records import ScriptSeen
from ctrkit.probe.hazards.facts import known_facts
from ctrkit.probe.hazards.limits import read_limits
from ctrkit.probe.hazards.rules import RULES, findings_of
from ctrkit.probe.scripts.as_written import (
    SCRIPT_LOADER,
    as_written_cell,
    first_values,
    script_inspection,
)
from ctrkit.probe.scripts.cells import refusal_of, script_matrix
from ctrkit.report.live import stderr_console
from ctrkit.supervise.stop import StopRequest, handle_interrupts
from ctrkit.supervise.supervisor import run_child

#: The most seconds that a script may take until its first steps.
LOOK_S = 600.0


def doctor_script(
    script: ScriptSpec, *, common: CommonOptions, axes: Axes, as_json: bool, quiet: bool
) -> None:
    """Print the hazards of the configurations that `ctrkit probe` would try of a script.

    Raises:
        NoViableCellError: the script does not train, or a configuration would be refused.
        InconclusiveError: nothing of its training could be observed.
        InterruptedRunError: stopped by the user.
    """
    if not quiet:
        stderr_console().print(
            "ctrkit runs the script up to its first training steps ...", style="dim"
        )
    with handle_interrupts(graceful=False) as stop:
        seen = _look(script, common, axes, stop)
    values = first_values(script, axes)
    own = as_written_cell(script, seen, values)
    inspection = script_inspection(script, seen, own, None)
    facts = known_facts(inspection, read_limits())
    plan = script_matrix(script, seen, own, inspection, axes, run_refused=True, facts=facts)
    checkup = Checkup(
        inspection=inspection,
        examination=Examination(),
        limits=facts.limits,
        cells=plan.cells,
        invalid=plan.refused,
        findings=(*_refusals(plan.cells, seen, own), *findings_of(plan.cells, facts)),
        notes=plan.notes,
        rules=len(RULES),
        versions=describe_environment()["versions"],
        allowances=stage_allowances(plan.cells, common.time_limits),
        script=seen,
    )
    show(checkup, as_json=as_json)


def _look(script: ScriptSpec, common: CommonOptions, axes: Axes, stop: StopRequest) -> ScriptSeen:
    cell = make_cell("the script", loader=SCRIPT_LOADER, **first_values(script, axes))
    workload = WorkloadSpec(target=SCRIPT_TARGET, script=script)
    remove_left_over("ctrkit-doctor-")
    with owned_folder("ctrkit-doctor-") as folder:
        outcome = run_child(
            ChildSpec(kind="inspect", folder=str(folder), workload=workload, cell=cell),
            time_limits=common.time_limits.of_script().of_cell(cell),
            evidence_folder=folder / "evidence",
            completion="script.json",
            deadline_s=time.monotonic() + LOOK_S,
            stop=stop,
        )
        seen = load_seen(folder / "script.json")
    if outcome.interrupted:
        raise InterruptedRunError("interrupted")
    if seen is not None and seen.clock and not seen.problem:
        return seen
    if seen is not None and seen.problem:
        raise InconclusiveError(f"the script cannot be observed: {seen.problem}")
    if outcome.verdict in ("ok", "skipped"):
        why = why_unobserved(script.command, Path(script.folder))
        raise InconclusiveError(
            f"ctrkit saw no training step of the script{f': {why}' if why else ''}"
        )
    raise NoViableCellError(f"the script failed ({outcome.verdict}): {outcome.reason}")


def _refusals(cells: Sequence[Cell], seen: ScriptSeen, own: Cell) -> list[HazardFinding]:
    """Findings on what the script's loader cannot take, one per reason."""
    found: dict[str, list[Cell]] = {}
    for cell in cells:
        if why := refusal_of(cell, seen, own):
            found.setdefault(why, []).append(cell)
    return [
        HazardFinding(
            hazard=Hazard(
                name="the script's loader",
                level="refusal",
                text=why,
                advice="use another number of workers, or another start method",
            ),
            cells=tuple(concerned),
        )
        for why, concerned in found.items()
    ]
