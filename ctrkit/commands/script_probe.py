"""`ctrkit probe -- COMMAND`: measures a script as written, then in other configurations."""

from __future__ import annotations

import math
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ctrkit.commands.options import Axes, CommonOptions
from ctrkit.commands.probe import search_and_recommend
from ctrkit.commands.probe_end import show_outcome
from ctrkit.commands.probe_options import (
    BRIEF_BUDGET_S,
    DEFAULT_BUDGET,
    ProbeOptions,
    read_probe_options,
)
from ctrkit.commands.script_batches import first_request, fitting_batch_words
from ctrkit.commands.several_hosts import why_not_probed
from ctrkit.commands.trial_launcher import TrialLauncher
from ctrkit.commands.unobserved import why_unobserved
from ctrkit.core.child_records import Inspection
from ctrkit.core.command_line import without_secrets
from ctrkit.core.config import SCRIPT_TARGET, Cell, ScriptSpec, WorkloadSpec
from ctrkit.core.environment import with_torch
from ctrkit.core.errors import (
    CtrkitError,
    InconclusiveError,
    InterruptedRunError,
    NoViableCellError,
    UsageError,
)
from ctrkit.core.folder_changes import FolderLook, changes_between, look_at_folder
from ctrkit.core.records import Recommendation
from ctrkit.core.runs import RunFolder
from ctrkit.core.script_records import ScriptAnswer, ScriptSeen
from ctrkit.core.script_sources import settled, sources_of
from ctrkit.core.units import format_duration
from ctrkit.probe.fitting_batch import device_is_full
from ctrkit.probe.hazards.facts import known_facts
from ctrkit.probe.hazards.limits import read_limits
from ctrkit.probe.scripts.answer import (
    clock_finding,
    experiment_finding,
    later_epochs_finding,
    notes_findings,
    script_answer,
)
from ctrkit.probe.scripts.as_written import (
    as_written_cell,
    first_values,
    heeded_axes,
    put_in_axes,
    script_inspection,
    script_name,
)
from ctrkit.probe.scripts.cells import script_matrix
from ctrkit.probe.search import SearchResult
from ctrkit.probe.trials import Trial, TrialResult
from ctrkit.report.live_probe import ProbeDisplay
from ctrkit.supervise.stop import StopRequest, handle_interrupts
from ctrkit.supervise.time_limits import TimeLimits
from ctrkit.supervise.trial_input import missing_input

#: The most seconds for a script's first launch; the limits of silence apply as well.
_FIRST_LAUNCH_S = 1800.0


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Time for a probe: `least_s`, or as many launches like the first one if that takes longer.

    With `launches` 0, it is a fixed time that includes the first launch. `most_s`: never longer.
    """

    least_s: float
    launches: int = 0
    most_s: float = math.inf

    def after_first(self, took_s: float) -> float:
        """Seconds for everything after a first launch that took this long."""
        return min(self.most_s, max(self.least_s, self.launches * took_s))


#: The budget without `--budget`: enough for a useful answer.
USEFUL = Budget(least_s=120.0, launches=8)
#: The budget before a run that has no recommendation and waits for one.
BRIEF = Budget(least_s=BRIEF_BUDGET_S, launches=4)


@dataclass(frozen=True, kw_only=True)
class FirstLaunch:
    """What the first launch of a script, as written, showed."""

    seen: ScriptSeen
    cell: Cell
    inspection: Inspection
    trial: Trial


def probe_script(
    script: ScriptSpec,
    *,
    common: CommonOptions,
    axes: Axes,
    budget: str | None,
    thorough: bool,
    deadline: str | None,
    run_refused: bool,
    scratch: Path | None,
    write_patch: Path | None,
    as_json: bool,
    quiet: bool,
    argv: Sequence[str],
    json_lines: bool = False,
) -> None:
    """Probe a script, and print the result.

    Args:
        script: the checked command.
        common: options shared with other commands.
        axes: the axes that the user gave.
        budget: time for the probe; None: enough for a useful answer.
        thorough: really run every configuration.
        deadline: say how many epochs fit into this time.
        run_refused: also try what a rule refuses.
        scratch: run the trials in a copy of the script's folder, made here.
        write_patch: the file for the change to the script.
        as_json: print one JSON document.
        quiet: show no progress.
        argv: the command line, for `run.json`.
        json_lines: print each answer so far as a line of JSON, and the document as the last line.

    Raises:
        UsageError: the script ends with a message about its own options.
        NoViableCellError, InconclusiveError: nothing can be recommended; the run folder says why.
        InterruptedRunError: the user stopped it; measurements are in the run folder.
    """
    options = read_probe_options(
        common, budget or DEFAULT_BUDGET, thorough, deadline, run_refused=run_refused, quiet=quiet,
        json_lines=json_lines,
    )  # fmt: skip
    if why := why_not_probed(script.command):
        raise UsageError(why)
    if write_patch is not None:
        check_new_file("--write-patch", write_patch)
    if scratch is not None:
        script = _scratch_copy(script, scratch)
    workload = WorkloadSpec(target=SCRIPT_TARGET, script=script)
    run = _create_run(script, argv, common.out)
    rule = USEFUL if budget is None else Budget(least_s=options.budget_s)
    with handle_interrupts(graceful=False) as stop:
        try:
            recommendation = _probe(run, script, workload, axes, options, rule, stop)
        except CtrkitError as error:
            _note_end(run, error)
            show_outcome(run, error, as_json=as_json, json_lines=json_lines)
            raise
    not_written = "" if write_patch is None else save_change(write_patch, recommendation.script)
    show_outcome(run, None, as_json=as_json, json_lines=json_lines)
    if not_written:
        print(f"ctrkit: {not_written}", file=sys.stderr)


def brief_script_probe(
    script: ScriptSpec,
    axes: Axes,
    stop: StopRequest,
    *,
    time_limits: TimeLimits,
    most_s: float = math.inf,
    quiet: bool = False,
) -> tuple[Recommendation, Path]:
    """A short probe for a real run without a recommendation; returns one and its run folder.

    Args:
        script: the checked command.
        axes: the axes that the user gave.
        stop: the user's stop request.
        time_limits: limits of silence.
        most_s: the most seconds after its first launch.
        quiet: show no progress.

    Raises:
        UsageError, NoViableCellError, InconclusiveError, InterruptedRunError: as `probe_script`.
    """
    if why := why_not_probed(script.command):
        raise InconclusiveError(why)
    workload = WorkloadSpec(target=SCRIPT_TARGET, script=script)
    run = _create_run(script, ["probe", "--", *script.command], None)
    options = ProbeOptions(budget_s=BRIEF.least_s, time_limits=time_limits, quiet=quiet)
    try:
        rule = replace(BRIEF, most_s=most_s)
        return _probe(run, script, workload, axes, options, rule, stop), run.path
    except CtrkitError as error:
        _note_end(run, error)
        raise


def _note_end(run: RunFolder, error: CtrkitError) -> None:
    """Record how a failed probe ended, if nothing has recorded it yet."""
    if run.info.status == "running":
        status = "interrupted" if isinstance(error, InterruptedRunError) else "done"
        run.update(status=status, status_reason=str(error))


def _create_run(script: ScriptSpec, argv: Sequence[str], out: Path | None) -> RunFolder:
    """Make the probe's run folder, without secrets."""
    command = without_secrets(script.command)
    shown = replace(script, command=command, environment=_without_secrets(script))
    workload = WorkloadSpec(target=SCRIPT_TARGET, script=shown)
    return RunFolder.create("probe", without_secrets(argv), workload, out)


def check_new_file(option: str, path: Path) -> None:
    """Refuse, before the probe, a file that could not be written after it."""
    if path.exists():
        raise UsageError(f"{option} {path}: exists already; name a new file")
    if not path.parent.is_dir():
        raise UsageError(f"{option} {path}: there is no folder {path.parent}; make it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise UsageError(f"{option} {path}: you may not write in {path.parent}; name another place")


def save_change(path: Path, answer: ScriptAnswer | None) -> str:
    """Write the change to the script as a diff; if there is none, returns why."""
    if answer is None or not answer.change:
        why = answer.change_words if answer is not None else ""
        why = why or "the script as written is recommended, so there is no change"
        return f"--write-patch {path}: no file was written: {why}"
    try:
        path.write_text(answer.change, "utf-8")
    except OSError as error:
        return f"--write-patch {path}: cannot be written: {error}; the report has the change"
    return ""


def _without_secrets(script: ScriptSpec) -> dict[str, str]:
    words = without_secrets([f"{key}={value}" for key, value in script.environment.items()])
    return dict(word.split("=", 1) for word in words)


def _probe(
    run: RunFolder,
    script: ScriptSpec,
    workload: WorkloadSpec,
    axes: Axes,
    options: ProbeOptions,
    budget: Budget,
    stop: StopRequest,
) -> Recommendation:
    launched_s = began_s = time.monotonic()
    folder = Path(script.folder)
    before = look_at_folder(folder, without=run.path)
    sources = sources_of(script)
    with ProbeDisplay(quiet=options.quiet) as display:
        about = format_duration(min(budget.least_s, budget.most_s))
        display.message(
            f"ctrkit runs {script_name(script)} as written first, then in other configurations; "
            f"that takes {'at least ' if budget.launches else ''}{about}"
        )
        launcher = TrialLauncher(run, workload, options.time_limits.of_script(), stop, display)
        first = _launch_as_written(script, axes, launcher)
    if budget.launches:
        took_s = first.trial.result.wall_s or 0.0
        options = replace(options, budget_s=budget.after_first(took_s))
        began_s = time.monotonic()
    known_loader = replace(script, train_loader=first.seen.train_loader)
    launcher.workload = replace(workload, script=known_loader)
    measured = first.trial.result.measurement
    launcher.time_limits = options.time_limits.of_script(
        measured.startup_s if measured else None, measured.first_batch_s if measured else None
    )
    launcher.put_in = lambda cell: [] if cell == first.cell else put_in_axes(script)
    facts = known_facts(first.inspection, read_limits())
    plan = script_matrix(
        script, first.seen, first.cell, first.inspection, axes,
        run_refused=options.run_refused, facts=facts,
    )  # fmt: skip
    inspection = replace(first.inspection, axes=list(heeded_axes(script, first.seen)))
    run.update(
        workload_fingerprint=first.inspection.workload_fingerprint,
        environment=with_torch(run.info.environment, first.seen.torch_version),
        sizes=first.inspection.sizes,
        budget_s=options.budget_s,
    )
    return search_and_recommend(
        run, workload, inspection, plan, options, stop, began_s,
        launcher=launcher, known=[first.trial],
        finish=partial(_with_answer, script, first, before, sources, run.path),
        launched_s=launched_s,
    )  # fmt: skip


def _with_answer(
    script: ScriptSpec,
    first: FirstLaunch,
    before: FolderLook,
    sources: Mapping[str, str],
    run_folder: Path,
    recommendation: Recommendation,
    result: SearchResult,
) -> Recommendation:
    """The recommendation with its meaning for the script."""
    after = look_at_folder(Path(script.folder), without=run_folder)
    answer = script_answer(
        script, first.seen, recommendation.cell, result, first.inspection,
        changes_between(before, after),
    )  # fmt: skip
    answer = replace(answer, sources=settled(sources, sources_of(script)))
    about = [
        experiment_finding(answer),
        later_epochs_finding(first.seen, answer, recommendation.cell),
        clock_finding(first.seen),
    ]
    findings = [*filter(None, about), *notes_findings(first.seen), *recommendation.findings]
    return replace(recommendation, script=answer, findings=findings)


def _launch_as_written(script: ScriptSpec, axes: Axes, launcher: TrialLauncher) -> FirstLaunch:
    """Run the script as written until enough of its steps were seen.

    Raises:
        UsageError: the script ended at once with a message about its own options.
        NoViableCellError: it failed before it trained.
        InconclusiveError: it trained nothing that could be observed.
        InterruptedRunError: the user stopped it.
    """
    values = first_values(script, axes)
    request = first_request(values)
    result = launcher(request, time.monotonic() + _FIRST_LAUNCH_S)
    if result.interrupted:
        raise InterruptedRunError("interrupted before the script trained")
    if device_is_full(result) and "batch_size" in values:
        fits = partial(_trains_with, values, launcher)
        raise _ended_badly(result, fitting_batch_words(values["batch_size"], fits))
    seen = result.seen
    if seen is None or not seen.clock or seen.problem:
        raise _nothing_seen(script, seen, result)
    cell = as_written_cell(script, seen, values)
    trial = Trial(request=replace(request, cell=cell), result=result, launch=1)
    if not trial.usable:
        raise _ended_badly(result)
    inspection = script_inspection(script, seen, cell, result.measurement)
    return FirstLaunch(seen=seen, cell=cell, inspection=inspection, trial=trial)


def _trains_with(
    values: Mapping[str, object], launcher: TrialLauncher, batch_size: int
) -> bool | None:
    """Whether a script trains with a batch size; None if it fails for a reason but memory."""
    request = first_request({**values, "batch_size": batch_size}, f"batch {batch_size}")
    result = launcher(request, time.monotonic() + _FIRST_LAUNCH_S)
    if device_is_full(result):
        return False
    trained = Trial(request=request, result=result, launch=1).usable
    return True if trained and not result.interrupted else None


def _ended_badly(result: TrialResult, more: str = "") -> NoViableCellError:
    why = f"the script as written failed ({result.verdict}): {result.reason}"
    no_input = missing_input() if result.verdict in ("setup-failed", "crashed") else ""
    return NoViableCellError(why.rstrip(".") + no_input + more)


def _nothing_seen(
    script: ScriptSpec, seen: ScriptSeen | None, result: TrialResult
) -> UsageError | NoViableCellError | InconclusiveError:
    """Why nothing of the training was observed, in one line."""
    if seen is not None and seen.problem:
        return InconclusiveError(f"the script cannot be observed: {seen.problem}")
    if result.exit_code == 2:  # the exit code of argparse and similar parsers
        return UsageError(f"the script as written failed: {result.reason}")
    if result.exit_code == 0 or result.verdict == "ok":
        why = why_unobserved(script.command, Path(script.folder)) or (
            "no torch DataLoader was followed by a backward pass, and no optimizer made a step "
            "(python -I, -E or -S, and a PYTHONPATH that is set anew, keep the observer out, too)"
        )
        return InconclusiveError(f"the script ended before ctrkit saw a training step: {why}")
    return _ended_badly(result)


def _scratch_copy(script: ScriptSpec, scratch: Path) -> ScriptSpec:
    """The script in a new copy of its folder.

    Raises:
        UsageError: the copy cannot be made, its place is not empty, or it lies inside the folder.
    """
    source, target = Path(script.folder), scratch.resolve()
    if target.exists() and any(target.iterdir()):
        raise UsageError(f"--scratch {scratch}: is not empty")
    if source == target or source in target.parents:
        raise UsageError(f"--scratch {scratch}: lies within {source}, which it would copy")
    try:
        shutil.copytree(
            source, target, symlinks=True, dirs_exist_ok=True,
            ignore=shutil.ignore_patterns(".git", "__pycache__", ".venv", "venv"),
        )  # fmt: skip
    except (OSError, shutil.Error) as error:
        raise UsageError(f"--scratch {scratch}: cannot copy {source} there: {error}") from None
    return replace(script, folder=str(target))
