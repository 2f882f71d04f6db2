"""`ctrkit probe`: inspects, searches, recommends, and leaves everything in a run folder."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ctrkit.commands.inspection import (
    find_workload,
    gather_facts,
    inspect_first,
    of_epochs,
    with_epochs,
)
from ctrkit.commands.known_spread import with_launch_spread
from ctrkit.commands.learned_times import by_label
from ctrkit.commands.options import Axes, CommonOptions
from ctrkit.commands.probe_end import Finish, conclude_probe, print_line, show_outcome
from ctrkit.commands.probe_options import (
    BRIEF_BUDGET_S,
    DEFAULT_BUDGET,
    ProbeOptions,
    read_probe_options,
)
from ctrkit.commands.trial_launcher import TrialLauncher
from ctrkit.core.child_records import Inspection
from ctrkit.core.config import WorkloadSpec, encode
from ctrkit.core.errors import (
    CtrkitError,
)
from ctrkit.core.files import plain_disk_errors
from ctrkit.core.records import AnswerSoFar, Finding, Recommendation, TrialRecord
from ctrkit.core.runs import RunFolder
from ctrkit.measure.steps import data_wait_share
from ctrkit.probe.matrix import MatrixPlan, build_matrix
from ctrkit.probe.search import SearchResult, run_search
from ctrkit.probe.trials import Trial
from ctrkit.report.live_probe import ProbeDisplay
from ctrkit.supervise.forkserver import ForkServer, fork_server
from ctrkit.supervise.gpu import combined
from ctrkit.supervise.gpu_findings import gpu_findings
from ctrkit.supervise.host_conditions import (
    HostLook,
    folder_bytes,
    host_findings,
    look_at_host,
    other_cores,
    read_power,
)
from ctrkit.supervise.stop import StopRequest, handle_interrupts

_MAKE_ROOM = "free some space, or name a folder on another disk with --out"


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
    """Probe a workload, and print the result.

    Args:
        common: options shared with other commands.
        axes: the axes that the user gave.
        budget: time for the probe.
        thorough: really run every cell.
        deadline: say how many epochs fit into this time.
        run_refused: also try what a rule refuses.
        as_json: print one JSON document.
        quiet: show no progress.
        argv: the command line, for `run.json`.
        json_lines: print each answer so far as a line of JSON, and the document as the last line.

    Raises:
        UsageError: bad input of any kind.
        NoViableCellError, InconclusiveError: nothing can be recommended; the run folder says why.
        InterruptedRunError: the user stopped it; measurements are in the run folder.
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
            inspection = inspect_first(
                "probe", argv, workload, replace(common, time_limits=options.time_limits), stop,
                server=server,
            )  # fmt: skip
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
    """A probe of BRIEF_BUDGET_S in its own run folder, for a run without a recommendation.

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


class _Said:
    """Saves and shows each trial and each answer as soon as it is known."""

    def __init__(
        self, run: RunFolder, display: ProbeDisplay, began_s: float, *, json_lines: bool
    ) -> None:
        self._run, self._display, self._began_s = run, display, began_s
        self._json_lines = json_lines
        self._records: list[TrialRecord] = []

    def record(self, record: TrialRecord, _trial: Trial | None) -> None:
        """Save and show a finished trial."""
        self._records.append(record)
        self._run.save_trials(self._records)
        self._display.record(record)

    def answer(self, answer: AnswerSoFar) -> None:
        """Show a new answer of the probe."""
        self._display.answer(answer)
        if self._json_lines:
            print_line({"wall_s": time.monotonic() - self._began_s, **encode(answer)})


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
    launched_s: float | None = None,
) -> Recommendation:
    """Search within the rest of the budget, and save everything as soon as it is known.

    Args:
        run: the run folder.
        workload: the workload to probe.
        inspection: its inspection.
        plan: the cells.
        options: the budget and other options.
        stop: the user's stop request.
        began_s: `time.monotonic()` when the budget began.
        launcher: a launcher that has launched something already.
        server: forks the trials if it can.
        known: the trials of that launcher.
        finish: completes the recommendation before it is saved.
        launched_s: when the user started the probe, if before `began_s`; progress lines count from
            there.
    """
    inspection = with_launch_spread(inspection)
    with ProbeDisplay(
        budget_s=options.budget_s, cells=plan.cells, quiet=options.quiet,
        began_s=began_s if launched_s is None else launched_s, budget_began_s=began_s,
    ) as display:  # fmt: skip
        for note in (options.time_limits.in_words(), *plan.notes, *plan.warnings):
            display.message(note)
        launcher = launcher or TrialLauncher(
            run, workload, options.time_limits, stop, display, server
        )
        launcher.display = display
        looked = look_at_host()
        said = _Said(run, display, began_s, json_lines=options.json_lines)
        try:
            result = run_search(
                plan,
                inspection,
                launch=launcher,
                clock=time.monotonic,
                budget_s=options.budget_s - (time.monotonic() - began_s),
                thorough=options.thorough,
                on_record=said.record,
                known=known,
                on_answer=said.answer,
            )
        finally:
            launcher.clean_up()
    run.save_trials(result.records)
    on_host, others = _of_the_host(looked, result, workload)
    stage_s = by_label(launcher.times)

    def complete(found: Recommendation, of: SearchResult) -> Recommendation:
        on_gpu = _on_gpu(found, of)
        return replace(
            finish(replace(found, findings=[*found.findings, *on_gpu]), of), stage_s=stage_s
        )

    return conclude_probe(run, inspection, result, options, began_s, on_host, complete, others)


def _of_the_host(
    looked: HostLook, result: SearchResult, workload: WorkloadSpec
) -> tuple[list[Finding], float | None]:
    """Findings on the machine, and the cores that other processes used (None if unknown)."""
    slept = any("host slept" in trial.result.flags for trial in result.trials)
    looked_again = look_at_host()
    failed = any(trial.failed for trial in result.trials)
    found = host_findings(
        looked, looked_again, read_power(), slept=slept, data_bytes=_data_bytes(workload),
        failed=failed,
    )  # fmt: skip
    return found, None if failed else other_cores(looked, looked_again)


def _on_gpu(found: Recommendation, result: SearchResult) -> list[Finding]:
    """Findings on the GPU while the recommended cell ran."""
    launches = result.full_trials(found.cell)
    shares = [data_wait_share(t.result.measurement) for t in launches if t.result.measurement]
    known = [share for share in shares if share is not None]
    use = combined([trial.result.gpu_use for trial in launches])
    return gpu_findings(use, sum(known) / len(known) if known else None)


def _data_bytes(workload: WorkloadSpec) -> int | None:
    """Size of the data on disk; None if only the workload knows where it is."""
    return folder_bytes(Path(workload.data)) if workload.data is not None else None
