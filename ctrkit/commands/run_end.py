"""How a real run ended: said in one line, kept in `run.json`, and raised where it is no success."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ctrkit.commands.restarts import BEGINNING, lost_steps
from ctrkit.commands.usable_checkpoint import inspect_checkpoint
from ctrkit.core.bystander import Bystander
from ctrkit.core.errors import InterruptedRunError, RunEndedError, UsageError
from ctrkit.core.files import read_json
from ctrkit.core.runs import Incident, RunFolder
from ctrkit.report.incidents import summary_words
from ctrkit.report.words import plural
from ctrkit.supervise.stop import StopRequest
from ctrkit.supervise.supervisor import Outcome


def conclude_run(
    run: RunFolder,
    outcome: Outcome,
    incidents: Sequence[Incident],
    wall_s: float,
    stop: StopRequest,
    aborted: str = "",
) -> str:
    """Keep in `run.json` how the run ended.

    Args:
        run: its folder.
        outcome: of its last child.
        incidents: of this session.
        wall_s: of all sessions.
        stop: the user's wish to end.
        aborted: why `--abort-if-later-than` ended it; empty where it did not.

    Returns:
        What is to be said of a run that is done, beside where its report is.

    Raises:
        InterruptedRunError, RunEndedError, UsageError: it is not done; the message says how to go
            on.
    """
    path = run.path / "child" / "outcome.json"
    result: dict[str, Any] = read_json(path) if outcome.complete and path.is_file() else {}
    history = summary_words(run.incidents())

    def keep(status: str, *reasons: str) -> None:
        reason = "; ".join(filter(None, (*reasons, history)))
        with Bystander().doing("to write down how it ended"):  # it has ended so all the same
            run.update(status=status, status_reason=reason, wall_s=wall_s)

    if result.get("finished"):
        keep("done", _max_steps_words(run, result))
        is_new = result.get("steps_run") or incidents
        return "" if is_new else f"{run.path} is finished already: nothing was left to do"
    how = _how_to_go_on(run.path)
    failed = outcome.verdict not in ("ok", "skipped")
    # a failure after the request to stop: what was done since the last checkpoint is lost
    is_saved = result.get("interrupted") or not (failed and outcome.interrupted)
    if aborted and is_saved:
        keep("ended", f"late: {aborted}")
        raise RunEndedError(f"the run was stopped: {aborted}; {how} --abort-if-later-than LONGER")
    if is_saved and (result.get("interrupted") or outcome.interrupted or stop.finish):
        lost = _lost_words(run.path, outcome) if outcome.cut_by_grace else ""
        by = f"by {stop.by}" if stop.by not in ("", "SIGINT") else "by the user"
        keep("interrupted", f"stopped {by}", lost)
        raise InterruptedRunError("; ".join(filter(None, ("interrupted", lost, how))))
    while_saving = "while it was stopping, " if failed and outcome.interrupted else ""
    if outcome.error is not None and outcome.error.verdict == "usage":
        keep("failed", f"{while_saving}{outcome.error.message}")
        raise UsageError(f"{while_saving}{outcome.error.message}")
    ended = f"{while_saving}{outcome.verdict}: {outcome.reason}"
    keep("ended", ended)
    after = f" after {plural(len(incidents) - 1, 'restart')}" if len(incidents) > 1 else ""
    raise RunEndedError(f"the run was ended{after}: {ended}; evidence in {outcome.evidence}; {how}")


def _max_steps_words(run: RunFolder, result: dict[str, Any]) -> str:
    """That `--max-steps` ended the run before its last epoch; empty where it did not."""
    if not result.get("by_max_steps"):
        return ""
    planned = f" of {run.info.sizes.epochs}" if run.info.sizes is not None else ""
    epochs = plural(int(result.get("epochs_done") or 0), "epoch")
    return (
        f"--max-steps ended it after {plural(int(result.get('steps_done') or 0), 'step')}: "
        f"{epochs}{planned} finished"
    )


def _how_to_go_on(path: Path) -> str:
    if (path / "checkpoints" / "last.pt").is_file():
        return f"go on with: ctrkit train --resume {path}"
    return f"nothing was saved yet; begin it again with: ctrkit train --resume {path}"


def _lost_words(path: Path, outcome: Outcome) -> str:
    """What a run lost that had not saved when its grace was over; empty where that is nothing."""
    saved = inspect_checkpoint(path / "checkpoints" / "last.pt")
    lost = lost_steps(outcome.progress, saved.position if saved else BEGINNING)
    if lost == 0:
        return ""
    steps = "an unknown number of steps is" if lost is None else f"{plural(lost, 'step')} are"
    if lost == 1:
        steps = "1 step is"
    return f"it had not saved when the grace was over (--grace gives it longer): {steps} lost"
