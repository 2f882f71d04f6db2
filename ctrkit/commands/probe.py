"""`ctrkit probe`: inspect, search, recommend, and leave all of it in a run folder."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ctrkit.commands.inspection import (
    find_workload,
    gather_facts,
    inspect_first,
    of_epochs,
    with_epochs,
)
from ctrkit.commands.known_spread import with_launch_spread
from ctrkit.commands.learned_times import by_label
from ctrkit.commands.options import Axes, CommonOptions, duration_s
from ctrkit.commands.trial_launcher import TrialLauncher
from ctrkit.core.config import WorkloadSpec, encode
from ctrkit.core.errors import (
    CtrkitError,
    InconclusiveError,
    InterruptedRunError,
    NoViableCellError,
    UsageError,
)
from ctrkit.core.files import finite, plain_disk_errors
from ctrkit.core.launch_spread import LaunchSpread
from ctrkit.core.records import (
    AnswerSoFar,
    Finding,
    Inspection,
    Recommendation,
    TrialRecord,
)
from ctrkit.core.runs import RunFolder
from ctrkit.measure.steps import data_wait_share
from ctrkit.probe.matrix import MatrixPlan, build_matrix
from ctrkit.probe.recommend import recommend
from ctrkit.probe.search import SearchResult, run_search
from ctrkit.probe.trials import Trial
from ctrkit.report.live_probe import ProbeDisplay
from ctrkit.report.run_reader import read_contents
from ctrkit.report.terminal import print_report
from ctrkit.report.views import report_view
from ctrkit.supervise.forkserver import ForkServer, fork_server
from ctrkit.supervise.gpu import combined
from ctrkit.supervise.gpu_findings import gpu_findings
from ctrkit.supervise.host_conditions import (
    folder_bytes,
    host_findings,
    look_at_host,
    other_cores,
    read_power,
    unknowns,
)
from ctrkit.supervise.stop import StopRequest, handle_interrupts
from ctrkit.supervise.time_limits import TimeLimits

Finish = Callable[[Recommendation, SearchResult], Recommendation]

DEFAULT_BUDGET = "120s"
BRIEF_BUDGET_S = 60.0
_LEAST_BUDGET_S = 5.0
_MAKE_ROOM = "free some space, or name a folder on another disk with --out"


@dataclass(frozen=True, kw_only=True)
class ProbeOptions:
    """What a probe is asked to do beside its workload and axes."""

    budget_s: float
    thorough: bool = False
    deadline_s: float | None = None
    run_refused: bool = False
    time_limits: TimeLimits = field(default_factory=TimeLimits)
    quiet: bool = False
    json_lines: bool = False


def probe(
    *,
    common: CommonOptions,
    axes: Axes,
    budget: str | None,
    thorough: bool,
    deadline: str | None,
    run_refused: bool,
    as_json: bool,
    quiet: bool,
    argv: Sequence[str],
    json_lines: bool = False,
) -> None:
    """Probe and print what was found.

    Args:
        common: options that other commands have, too.
        axes: those that options named.
        budget: time for the probe.
        thorough: really run every cell.
        deadline: say how many epochs fit into this time.
        run_refused: try what a rule refuses, too.
        as_json: print one JSON document.
        quiet: show no progress.
        argv: for `run.json`.
        json_lines: print each answer so far as a line of JSON, and the document as the last line.

    Raises:
        UsageError: bad input of any kind.
        NoViableCellError, InconclusiveError: nothing can be recommended; the run folder says why.
        InterruptedRunError: stopped by the user; what was measured is in the run folder.
    """
    options = read_probe_options(
        common, budget or DEFAULT_BUDGET, thorough, deadline, run_refused=run_refused, quiet=quiet,
        json_lines=json_lines,
    )  # fmt: skip
    workload = with_epochs(find_workload(common, quiet=quiet), common.epochs)
    began_s = time.monotonic()
    folder = common.out or Path("results/runs")
    with (
        handle_interrupts(graceful=False) as stop,
        fork_server(lambda: stop.finish) as server,
    ):
        with plain_disk_errors(folder, advice=_MAKE_ROOM):
            inspection = inspect_first("probe", argv, workload, common, stop, server=server)
            inspection = of_epochs(inspection, common.epochs)
            facts = gather_facts(workload, inspection)
            plan = build_matrix(inspection, axes, run_refused=run_refused, facts=facts)
            run = _create_run(argv, workload, inspection, options, common.out)
        try:
            with plain_disk_errors(run.path, advice=_MAKE_ROOM):
                search_and_recommend(
                    run, workload, inspection, plan, options, stop, began_s, server=server
                )
        except CtrkitError as error:
            show_outcome(run, error, as_json=as_json, json_lines=json_lines)
            raise
    show_outcome(run, None, as_json=as_json, json_lines=json_lines)


def brief_probe(
    common: CommonOptions,
    axes: Axes,
    workload: WorkloadSpec,
    inspection: Inspection,
    stop: StopRequest,
    *,
    quiet: bool,
) -> Recommendation:
    """A probe of BRIEF_BUDGET_S in a run folder of its own, for a run that has none yet.

    Raises:
        NoViableCellError, InconclusiveError, InterruptedRunError: as `probe`.
    """
    options = ProbeOptions(budget_s=BRIEF_BUDGET_S, time_limits=common.time_limits, quiet=quiet)
    began_s = time.monotonic()
    plan = build_matrix(inspection, axes, facts=gather_facts(workload, inspection))
    run = _create_run(["probe"], workload, inspection, options, None)
    with fork_server(lambda: stop.finish) as server:
        return search_and_recommend(
            run, workload, inspection, plan, options, stop, began_s, server=server
        )


def read_probe_options(
    common: CommonOptions,
    budget: str,
    thorough: bool,
    deadline: str | None,
    *,
    run_refused: bool,
    quiet: bool,
    json_lines: bool = False,
) -> ProbeOptions:
    """The checked options of a probe.

    Raises:
        UsageError: no duration, or too short a one.
    """
    return ProbeOptions(
        budget_s=_budget_s(budget),
        thorough=thorough,
        deadline_s=duration_s("--deadline", deadline),
        run_refused=run_refused,
        time_limits=common.time_limits,
        quiet=quiet,
        json_lines=json_lines,
    )


def _budget_s(text: str) -> float:
    budget_s = duration_s("--budget", text)
    assert budget_s is not None, "it has a default"
    if budget_s < _LEAST_BUDGET_S:
        raise UsageError(f"--budget {text}: is too short to start anything; give at least 5s")
    return budget_s


def _create_run(
    argv: Sequence[str],
    workload: WorkloadSpec,
    inspection: Inspection,
    options: ProbeOptions,
    out: Path | None,
) -> RunFolder:
    run = RunFolder.create("probe", argv, workload, out)
    run.update(
        workload_fingerprint=inspection.workload_fingerprint,
        data_fingerprint=inspection.data_fingerprint,
        device_names=inspection.device_names,
        unheeded=inspection.unheeded,
        sizes=inspection.sizes,
        budget_s=options.budget_s,
    )
    return run


def search_and_recommend(
    run: RunFolder,
    workload: WorkloadSpec,
    inspection: Inspection,
    plan: MatrixPlan,
    options: ProbeOptions,
    stop: StopRequest,
    began_s: float,
    *,
    launcher: TrialLauncher | None = None,
    server: ForkServer | None = None,
    known: Sequence[Trial] = (),
    finish: Finish = lambda recommendation, _: recommendation,
) -> Recommendation:
    """Search within what is left of the budget and save everything as soon as it is known.

    Args:
        run: its folder.
        workload: what is probed.
        inspection: of it.
        plan: the cells.
        options: the budget and the like.
        stop: the user's wish to end.
        began_s: when the budget began, of `time.monotonic()`.
        launcher: one that has launched something already.
        server: forks the trials, where it can.
        known: what that came to.
        finish: completes the recommendation, before it is saved.
    """
    inspection = with_launch_spread(inspection)
    with ProbeDisplay(budget_s=options.budget_s, cells=plan.cells, quiet=options.quiet) as display:
        for note in (options.time_limits.in_words(), *plan.notes, *plan.warnings):
            display.message(note)
        launcher = launcher or TrialLauncher(
            run, workload, options.time_limits, stop, display, server
        )
        launcher.display = display
        looked = look_at_host()
        records: list[TrialRecord] = []

        def on_record(record: TrialRecord, _trial: Trial | None) -> None:
            records.append(record)
            run.save_trials(records)
            display.record(record)

        def on_answer(answer: AnswerSoFar) -> None:
            display.answer(answer)
            if options.json_lines:
                _print_line({"wall_s": time.monotonic() - began_s, **encode(answer)})

        try:
            result = run_search(
                plan,
                inspection,
                launch=launcher,
                clock=time.monotonic,
                budget_s=options.budget_s - (time.monotonic() - began_s),
                thorough=options.thorough,
                on_record=on_record,
                known=known,
                on_answer=on_answer,
            )
        finally:
            launcher.clean_up()
    run.save_trials(result.records)
    slept = any("host slept" in trial.result.flags for trial in result.trials)
    looked_again = look_at_host()
    failed = any(trial.failed for trial in result.trials)
    on_host = host_findings(
        looked, looked_again, read_power(), slept=slept, data_bytes=_data_bytes(workload),
        failed=failed,
    )  # fmt: skip
    others = 0.0 if failed else other_cores(looked, looked_again)
    stage_s = by_label(launcher.times)

    def complete(found: Recommendation, of: SearchResult) -> Recommendation:
        on_gpu = _on_gpu(found, of)
        return replace(
            finish(replace(found, findings=[*found.findings, *on_gpu]), of), stage_s=stage_s
        )

    return _conclude(run, inspection, result, options, began_s, on_host, complete, others)


def _on_gpu(found: Recommendation, result: SearchResult) -> list[Finding]:
    """What the GPU did while the recommended cell was run."""
    launches = result.full_trials(found.cell)
    shares = [data_wait_share(t.result.measurement) for t in launches if t.result.measurement]
    known = [share for share in shares if share is not None]
    use = combined([trial.result.gpu_use for trial in launches])
    return gpu_findings(use, sum(known) / len(known) if known else None)


def _data_bytes(workload: WorkloadSpec) -> int | None:
    """Size of the data on disk, None where the workload alone knows where they are."""
    return folder_bytes(Path(workload.data)) if workload.data is not None else None


def _conclude(
    run: RunFolder,
    inspection: Inspection,
    result: SearchResult,
    options: ProbeOptions,
    began_s: float,
    on_host: Sequence[Finding] = (),
    finish: Finish = lambda recommendation, _: recommendation,
    others: float = 0.0,
) -> Recommendation:
    """Recommend, or say why that is not possible; either way the run folder says how it ended."""
    wall_s = time.monotonic() - began_s
    try:
        recommendation = recommend(
            result, inspection, deadline_s=options.deadline_s, host_findings=on_host,
            other_cores=others,
        )  # fmt: skip
    except UsageError as error:
        run.update(status="failed", status_reason=str(error), wall_s=wall_s)
        raise
    except (NoViableCellError, InconclusiveError) as error:
        if not result.interrupted:
            # a busy machine is a reason for having no time; where trials failed, that is the reason
            failed = any(trial.failed for trial in result.trials)
            more = on_host[:1] if isinstance(error, InconclusiveError) and not failed else ()
            reason = "; ".join([str(error), *(f.text.partition(";")[0] for f in more)])
            run.update(status="done", status_reason=reason, wall_s=wall_s)
            raise type(error)(reason) from None
    else:
        signed = _signed(recommendation, run, wall_s, inspection.launch_spread)
        recommendation = finish(signed, result)
        run.save_recommendation(recommendation)
    if result.interrupted:
        run.update(status="interrupted", status_reason="stopped by the user", wall_s=wall_s)
        raise InterruptedRunError(f"interrupted; what was measured is in {run.path}")
    run.update(status="done", cell=recommendation.cell, wall_s=wall_s)
    return recommendation


def _signed(
    recommendation: Recommendation, run: RunFolder, wall_s: float, spread: LaunchSpread | None
) -> Recommendation:
    """The recommendation with the probe's name, and with what such a probe cannot know."""
    found = list(recommendation.findings)
    if recommendation.projected_epoch_s is not None:
        found.append(
            unknowns(
                wall_s=wall_s,
                launches=recommendation.launches or 0,
                flags=recommendation.flags,
                epoch_s=recommendation.projected_epoch_s,
                spread=spread,
            )
        )
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return replace(
        recommendation, probe=run.path.name, origin=run.origin(), findings=found,
        projected_at=now, launch_spread=spread,
    )  # fmt: skip


def show_outcome(
    run: RunFolder, error: CtrkitError | None, *, as_json: bool, json_lines: bool = False
) -> None:
    """Print the report or the JSON document; bad input has no report.

    A terminal that was closed is the likeliest reason for an interrupted probe: that stays one.
    """
    with suppress(OSError) if isinstance(error, InterruptedRunError) else nullcontext():
        if json_lines:
            _print_line(_document(run, None if error is None else str(error)))
        elif as_json:
            document = _document(run, None if error is None else str(error))
            json.dump(finite(document), sys.stdout, indent=2, allow_nan=False)
            print()
        elif not isinstance(error, UsageError):
            print_report([report_view(read_contents(run.path))])


def _document(run: RunFolder, error: str | None) -> dict[str, Any]:
    """The one document: the recommendation's keys, `run`, `trials`, and `error` where there is."""
    recommendation = run.recommendation()
    document: dict[str, Any] = {} if recommendation is None else dict(encode(recommendation))
    document |= {"run": str(run.path), "trials": [encode(record) for record in run.trials()]}
    if error is not None:
        document["error"] = error
    return document


def _print_line(document: dict[str, Any]) -> None:
    """A JSON document as a line, at once."""
    print(json.dumps(finite(document), allow_nan=False), flush=True)
