"""Restarts a real run after a hang or a death: evidence, an incident, the last checkpoint."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ctrkit.commands.usable_checkpoint import SavedPosition, inspect_checkpoint, usable_checkpoint
from ctrkit.core.bystander import Bystander
from ctrkit.core.child_records import Inspection
from ctrkit.core.config import Cell, ChildSpec
from ctrkit.core.errors import CtrkitError
from ctrkit.core.progress import Progress
from ctrkit.core.runs import Incident, RunFolder
from ctrkit.core.units import format_duration
from ctrkit.supervise.explain.sentences import Cause
from ctrkit.supervise.remedies import Remedy, advise, safest_cell
from ctrkit.supervise.stop import StopRequest
from ctrkit.supervise.supervisor import Outcome

_PAUSE_S = 2.0
BEGINNING = SavedPosition(epoch=1, batch=0)


@dataclass(frozen=True, kw_only=True)
class RestartRules:
    """Whether a run that was ended restarts by itself, how often, and why not."""

    fallback: bool = True
    max_restarts: int = 3
    off: str = "--no-fallback"


@dataclass(frozen=True, kw_only=True)
class Supervision:
    """The tools for restarts.

    Args:
        launch: runs a spec's child to its end, with its own evidence folder.
        look: inspects the workload, only when needed.
        announce: called with each incident before the run continues.
        stop: the user's stop request.
        learn: raises a limit after a verdict of a hang, and says so in words.
        clock: returns seconds, monotonic.
    """

    launch: Callable[[ChildSpec, Path], Outcome]
    look: Callable[[], Inspection]
    announce: Callable[[Incident], None]
    stop: StopRequest
    learn: Callable[[Outcome], str] = lambda outcome: ""
    clock: Callable[[], float] = time.monotonic


@dataclass(frozen=True)
class _Choice:
    """The action after an end, its reason, and the cell in which the run continues."""

    action: str
    why: str
    cell: Cell | None = None


def run_over_restarts(
    run: RunFolder, spec: ChildSpec, rules: RestartRules, supervision: Supervision
) -> tuple[Outcome, list[Incident]]:
    """Launch, and relaunch from the last checkpoint, until the run is done or must be given up.

    Every end other than a finished, interrupted or wrongly used one is appended to
    `incidents.jsonl` before anything else happens. `run.json` and `spec.json` keep the cell of the
    last launch.

    Returns:
        The last outcome, and the incidents of these launches.
    """
    incidents: list[Incident] = []
    bystander = Bystander()
    while True:
        place, launched_s = run.new_evidence("train"), supervision.clock()
        # remove an earlier launch's error, so that it is not taken for this one's
        (Path(spec.folder) / "measurement.json").unlink(missing_ok=True)
        outcome = supervision.launch(spec, place)
        was_misused = outcome.error is not None and outcome.error.verdict == "usage"
        if outcome.verdict in ("ok", "skipped") or was_misused:
            with bystander.doing("to write a pause down"):
                _note_pauses(run, spec, outcome)
            return outcome, incidents
        choice = _choose(run, spec, outcome, rules, len(incidents), supervision)
        learned = supervision.learn(outcome) if choice.cell is not None else ""
        wall_s = supervision.clock() - launched_s
        incident = _incident(run, spec, outcome, choice, place, wall_s, learned)
        with bystander.doing("to write the incident down"):
            run.append_incident(incident)
        incidents.append(incident)
        with bystander.doing("to write a pause down"):
            _note_pauses(run, spec, outcome)
        if choice.cell is None:
            return outcome, incidents
        supervision.announce(incident)
        if supervision.stop.finish:
            return outcome, incidents
        resumes = (run.path / "checkpoints" / "last.pt").is_file()
        assert spec.train is not None, "a train spec has a train plan"
        plan = dataclasses.replace(spec.train, resume=resumes)
        spec = dataclasses.replace(spec, cell=choice.cell, train=plan)
        with bystander.doing("to write the new cell down"):
            run.update(cell=spec.cell)


def _choose(
    run: RunFolder,
    spec: ChildSpec,
    outcome: Outcome,
    rules: RestartRules,
    restarts: int,
    supervision: Supervision,
) -> _Choice:
    """The safest way to continue, or why there is none."""
    if outcome.complete:
        return _Choice("finished", "its result was complete")
    if outcome.interrupted or supervision.stop.finish:
        return _Choice("stopped", "you stopped it")
    if not rules.fallback:
        return _Choice("stopped", rules.off)
    advice = advise(outcome, spec.cell)
    if advice.remedy is Remedy.NONE:
        return _Choice("stopped", advice.why)
    if restarts >= rules.max_restarts:
        return _Choice("stopped", f"--max-restarts {rules.max_restarts} have all been used")
    if advice.remedy is Remedy.SAME_CELL:
        return _Choice("restarted", advice.why, spec.cell)
    try:
        inspection = supervision.look()
    except CtrkitError:  # interrupted, or the workload cannot be inspected
        if supervision.stop.finish:
            return _Choice("stopped", "you stopped it")
        return _Choice(
            "restarted", "ctrkit could not ask the workload for a safer configuration", spec.cell
        )
    tied = run.info.projection.tied if run.info.projection is not None else []
    cell = safest_cell(spec.cell, tied=tied, loaders=inspection.loaders, axes=inspection.axes)
    if cell == spec.cell:
        return _Choice("restarted", "the loader takes no number of workers", cell)
    return _Choice("restarted", advice.why, cell)


def _incident(
    run: RunFolder,
    spec: ChildSpec,
    outcome: Outcome,
    choice: _Choice,
    evidence: Path,
    wall_s: float,
    learned: str,
) -> Incident:
    """The line for `incidents.jsonl`; if the run continues, a damaged checkpoint is replaced."""
    folder = run.path / "checkpoints"
    goes_on = choice.cell is not None
    saved = usable_checkpoint(folder) if goes_on else inspect_checkpoint(folder / "last.pt")
    position, progress = (saved.position if saved else BEGINNING), outcome.progress
    notes = [saved.problem if saved else "", order_note(choice.cell, position), learned]
    cause: Cause | None = outcome.cause
    return Incident(
        number=run.next_incident(),
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        verdict=outcome.verdict,
        reason=outcome.reason,
        cause=cause.sentence if cause is not None else None,
        fix=(cause.fix or None) if cause is not None else None,
        evidence=None if outcome.evidence is None else f"evidence/{evidence.name}",
        epoch=progress.epoch if progress is not None else 0,
        step=progress.step if progress is not None else 0,
        stage=outcome.failed_stage,
        cell_before=spec.cell,
        cell_after=choice.cell,
        action=choice.action,
        why=choice.why,
        resumed_from=dataclasses.asdict(position) if goes_on else None,
        lost_steps=None if choice.action == "finished" else lost_steps(progress, position),
        lost_s=None if choice.action == "finished" else _lost_s(folder / "last.pt", wall_s),
        note="; ".join(filter(None, notes)) or None,
    )


def _note_pauses(run: RunFolder, spec: ChildSpec, outcome: Outcome) -> None:
    """Note that the host slept or the run was stopped from outside: no hangs, but worth a line."""
    progress = outcome.progress
    for verdict, lasted_s, words in (
        ("host slept", outcome.host_slept_s, "the host slept"),
        ("was stopped", outcome.stopped_s, "a process of the run was stopped from outside"),
    ):
        if lasted_s >= _PAUSE_S:
            run.append_incident(
                Incident(
                    number=run.next_incident(),
                    at=datetime.now(UTC).isoformat(timespec="seconds"),
                    verdict=verdict,
                    reason=f"{words} for {format_duration(lasted_s)} in all",
                    epoch=progress.epoch if progress is not None else 0,
                    step=progress.step if progress is not None else 0,
                    stage=outcome.failed_stage,
                    cell_before=spec.cell,
                    cell_after=spec.cell,
                    action="noted",
                    lost_s=lasted_s,
                )
            )


def lost_steps(progress: Progress | None, position: SavedPosition) -> int | None:
    """Steps that this launch did after the checkpoint at `position`; None if unknown."""
    if progress is None or progress.epoch < position.epoch:
        return 0
    epochs = progress.epoch - position.epoch
    if epochs and not progress.steps:
        return None
    return max(0, epochs * progress.steps + progress.step - position.batch)


def _lost_s(checkpoint: Path, wall_s: float) -> float:
    """Seconds since the checkpoint; for an older one, or without one, the whole launch."""
    try:
        return min(wall_s, max(0.0, time.time() - checkpoint.stat().st_mtime))
    except OSError:
        return wall_s


def order_note(cell: Cell | None, position: SavedPosition) -> str | None:
    """What a restart means for the order of a loader that ctrkit did not make."""
    if cell is None or cell.loader != "custom":
        return None
    unseeded = "if your loader shuffles without a seed of its own for each epoch"
    if position.batch == 0:
        return f"epoch {position.epoch} starts over: {unseeded}, perhaps in another order"
    return (
        f"the first {position.batch} batches of epoch {position.epoch} are left out: {unseeded}, "
        "some rows of that epoch may come twice and others not at all"
    )
