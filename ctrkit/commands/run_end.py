"""Ends a real run: one line on how it ended, the same in `run.json`, an error if it failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctrkit.commands.restarts import BEGINNING, lost_steps
from ctrkit.commands.usable_checkpoint import inspect_checkpoint
from ctrkit.core.bystander import Bystander
from ctrkit.core.errors import CtrkitError, InterruptedRunError, RunEndedError, UsageError
from ctrkit.core.files import read_json
from ctrkit.core.runs import Incident, RunFolder
from ctrkit.core.unsaved import UNSAVED_FILE, read_unsaved
from ctrkit.report.incidents import summary_words
from ctrkit.report.words import plural
from ctrkit.supervise.stop import StopRequest
from ctrkit.supervise.supervisor import Outcome


@dataclass(frozen=True, kw_only=True)
class RunEnd:
    """How a run ended: `status` and `reason` for `run.json`, and the error to raise if not done.

    `said`: what to print about a finished run, besides the place of its report.
    """

    status: str
    reason: str = ""
    error: CtrkitError | None = None
    said: str = ""


def conclude_run(
    run: RunFolder,
    outcome: Outcome,
    incidents: Sequence[Incident],
    wall_s: float,
    stop: StopRequest,
    aborted: str = "",
) -> str:
    """Record in `run.json` how the run ended.

    Args:
        run: the run folder.
        outcome: outcome of its last child.
        incidents: incidents of this session.
        wall_s: seconds of all sessions.
        stop: the user's stop request.
        aborted: why `--abort-if-later-than` ended it; empty if it did not.

    Returns:
        What to print about a finished run, besides the place of its report.

    Raises:
        InterruptedRunError, RunEndedError, UsageError: it is not finished; the message says how to
            continue.
    """
    path = run.path / "child" / "outcome.json"
    result: dict[str, Any] = read_json(path) if outcome.complete and path.is_file() else {}
    if result.get("finished"):
        end = _finished(run, result, anew=bool(result.get("steps_run") or incidents))
    else:
        lost = _lost_words(run.path, outcome) if outcome.cut_by_grace else ""
        end = end_of_unfinished(
            outcome, stop, aborted=aborted, is_saved=bool(result.get("interrupted")), lost=lost,
            restarts=max(0, len(incidents) - 1), how=_how_to_go_on(run.path),
        )  # fmt: skip
        if end.status == "ended" and (words := _unsaved_words(run.path)):
            end = RunEnd(status="failed", reason=words, error=UsageError(words))
    reason = "; ".join(filter(None, (end.reason, summary_words(run.incidents()))))
    with Bystander().doing("to write down how it ended"):  # it has ended so all the same
        run.update(status=end.status, status_reason=reason, wall_s=wall_s)
    if end.error is not None:
        raise end.error
    return end.said


def _finished(run: RunFolder, result: Mapping[str, Any], *, anew: bool) -> RunEnd:
    said = "" if anew else f"{run.path} is already finished: nothing to do"
    reasons = (_max_steps_words(run, result), _best_words(result))
    reason, lost = "; ".join(filter(None, reasons)), _best_words(result)
    return RunEnd(status="done", reason=reason, said="; ".join(filter(None, (said, lost))))


def end_of_unfinished(
    outcome: Outcome,
    stop: StopRequest,
    *,
    aborted: str,
    is_saved: bool,
    lost: str,
    restarts: int,
    how: str,
) -> RunEnd:
    """How a run ended that has epochs left.

    Args:
        outcome: outcome of its last child.
        stop: the user's stop request.
        aborted: why `--abort-if-later-than` ended it; empty if it did not.
        is_saved: whether its child saved because it was asked to stop.
        lost: what was not saved when the grace period ended, in words.
        restarts: number of restarts in this session.
        how: how to continue, in words.
    """
    failed = outcome.verdict not in ("ok", "skipped")
    # after a failure following the stop request, work since the last checkpoint is lost
    stopped_well = is_saved or not (failed and outcome.interrupted)
    if aborted and stopped_well:
        words = f"stopped the run: {aborted}; {how} --abort-if-later-than LONGER"
        return RunEnd(status="ended", reason=f"late: {aborted}", error=RunEndedError(words))
    if stopped_well and (is_saved or outcome.interrupted or stop.finish):
        by = f"by {stop.by}" if stop.by not in ("", "SIGINT") else "by the user"
        words = "; ".join(filter(None, ("interrupted", lost, how)))
        reason = "; ".join(filter(None, (f"stopped {by}", lost)))
        return RunEnd(status="interrupted", reason=reason, error=InterruptedRunError(words))
    while_saving = "while it was stopping, " if failed and outcome.interrupted else ""
    if outcome.error is not None and outcome.error.verdict == "usage":
        words = f"{while_saving}{outcome.error.message}"
        return RunEnd(status="failed", reason=words, error=UsageError(words))
    ended = f"{while_saving}{outcome.verdict}: {outcome.reason}"
    after = f" after {plural(restarts, 'restart')}" if restarts else ""
    words = f"ended the run{after}: {ended}; evidence in {outcome.evidence}; {how}"
    return RunEnd(status="ended", reason=ended, error=RunEndedError(words))


def _max_steps_words(run: RunFolder, result: Mapping[str, Any]) -> str:
    """Words that `--max-steps` ended the run before its last epoch; else empty."""
    if not result.get("by_max_steps"):
        return ""
    known = run.info.planned_epochs
    planned = "" if known is None else f" of {known}"
    epochs = plural(int(result.get("epochs_done") or 0), "epoch")
    return (
        f"--max-steps ended it after {plural(int(result.get('steps_done') or 0), 'step')}: "
        f"{epochs}{planned} finished"
    )


def _unsaved_words(path: Path) -> str:
    """Words that the disk refused the run's last state, for a run that had no room to say so."""
    unsaved = read_unsaved(path / "child" / UNSAVED_FILE)
    if unsaved is None or not unsaved.failures or not unsaved.waits_s:
        return ""
    return (
        f"{path / 'checkpoints' / 'last.pt'}: cannot be written: {unsaved.why}; "
        f"{unsaved.saved_words}: make room, then {_how_to_go_on(path)}"
    )


def _best_words(result: Mapping[str, Any]) -> str:
    """Words that `best.pt` is not from the best epoch; else empty."""
    if not result.get("best_lost"):
        return ""
    return (
        f"checkpoints/best.pt is not of epoch {result.get('best_epoch')}, the best one: the disk "
        "refused to keep that"
    )


def _how_to_go_on(path: Path) -> str:
    if (path / "checkpoints" / "last.pt").is_file():
        return f"continue with: ctrkit train --resume {path}"
    return f"nothing was saved yet; start it again with: ctrkit train --resume {path}"


def _lost_words(path: Path, outcome: Outcome) -> str:
    """What a run lost that was not saved when the grace period ended; empty if nothing."""
    saved = inspect_checkpoint(path / "checkpoints" / "last.pt")
    lost = lost_steps(outcome.progress, saved.position if saved else BEGINNING)
    if lost == 0:
        return ""
    steps = "an unknown number of steps is" if lost is None else f"{plural(lost, 'step')} are"
    if lost == 1:
        steps = "1 step is"
    return f"it had not saved when its --grace was over (give it longer): {steps} lost"
