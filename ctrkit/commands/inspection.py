"""The first steps of `probe` and `train`: find the data, and let a child inspect the workload."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from ctrkit.commands.options import CommonOptions
from ctrkit.core.bystander import say
from ctrkit.core.child_files import load_inspection
from ctrkit.core.child_records import Examination, Inspection
from ctrkit.core.config import CHECKPOINT_EVERY_S, ChildSpec, RunSizes, WorkloadSpec, make_cell
from ctrkit.core.errors import (
    CtrkitError,
    InterruptedRunError,
    NoViableCellError,
    RunEndedError,
    UsageError,
)
from ctrkit.core.owned_folders import owned_folder, remove_left_over
from ctrkit.core.registry import is_file_target, plugin_of
from ctrkit.core.runs import RunFolder
from ctrkit.probe.hazards.facts import HazardFacts, known_facts
from ctrkit.probe.hazards.limits import read_limits
from ctrkit.probe.hazards.source import look_at_files
from ctrkit.report.building import build_display
from ctrkit.report.silence import SilenceNotice
from ctrkit.supervise.forkserver import ForkServer
from ctrkit.supervise.stop import StopRequest
from ctrkit.supervise.supervisor import run_child
from ctrkit.supervise.time_limits import StageTimes, TimeLimits
from ctrkit.supervise.watching import Tick

#: begins the names of the temporary folders of inspections
_INSPECT = "ctrkit-inspect-"


def find_workload(common: CommonOptions, *, quiet: bool) -> WorkloadSpec:
    """The workload's spec, with its data checked; default data is made if needed.

    Raises:
        UsageError: `--data` is not what the workload reads.
    """
    data = None if common.data is None else common.data.resolve()
    with build_display(quiet=quiet) as on_progress:
        try:
            data = plugin_of(common.target).prepare_data(data, on_progress)
        except (CtrkitError, KeyboardInterrupt, OSError):
            raise
        except Exception as error:  # another package's plug-in may raise anything
            raise UsageError(
                f"workload {common.target}: its data cannot be prepared: "
                f"{type(error).__name__}: {error}"
            ) from error
    return WorkloadSpec(
        target=common.target,
        data=None if data is None else str(data),
        settings=common.settings,
    )


def inspect_first(
    command: str,
    argv: Sequence[str],
    workload: WorkloadSpec,
    common: CommonOptions,
    stop: StopRequest,
    *,
    deadline_s: float | None = None,
    server: ForkServer | None = None,
) -> Inspection:
    """`inspect_workload` before a run folder exists; on a failure, one is made and says why.

    Raises:
        UsageError, InterruptedRunError, NoViableCellError, RunEndedError: as `inspect_workload`;
            for a training run, any failure is a RunEndedError.
    """
    made: list[RunFolder] = []

    def make_run() -> RunFolder:
        made.append(RunFolder.create(command, argv, workload, common.out))
        return made[0]

    try:
        return inspect_workload(
            workload, stop, limits=common.time_limits, deadline_s=deadline_s, run=make_run,
            server=server,
        )  # fmt: skip
    except NoViableCellError as error:
        for run in made:
            run.update(status="failed", status_reason=str(error))
        if command == "train":
            raise RunEndedError(str(error)) from None
        raise


def with_epochs(workload: WorkloadSpec, epochs: int | None) -> WorkloadSpec:
    """The spec of a run with so many epochs: the end of a schedule may depend on it."""
    if epochs is None or is_file_target(workload.target):
        return workload
    plugin = plugin_of(workload.target)
    settings = plugin.with_epochs(plugin.typed(workload.settings), epochs)
    return dataclasses.replace(workload, settings=plugin.plain(settings))


def of_epochs(
    inspection: Inspection, epochs: int | None, checkpoint_every_s: float = CHECKPOINT_EVERY_S
) -> Inspection:
    """The inspection of a run with so many epochs, and so many seconds between checkpoints."""
    sizes = inspection.sizes
    if epochs is not None:
        sizes = dataclasses.replace(sizes or RunSizes(), epochs=epochs)
    if sizes is not None and inspection.has_task:
        sizes = dataclasses.replace(sizes, checkpoint_every_s=checkpoint_every_s)
    return dataclasses.replace(inspection, sizes=sizes)


def inspect_workload(
    workload: WorkloadSpec,
    stop: StopRequest,
    *,
    limits: TimeLimits | None = None,
    deadline_s: float | None = None,
    on_tick: Callable[[Tick], None] | None = None,
    run: Callable[[], RunFolder] | None = None,
    server: ForkServer | None = None,
) -> Inspection:
    """Let a child find devices, sizes and fingerprints, since only a child imports torch.

    Args:
        workload: the workload to inspect.
        stop: the user's stop request.
        limits: how long each stage may be silent.
        deadline_s: `time.monotonic()` at which to give up.
        on_tick: called a few times a second.
        run: makes or returns the run folder, which keeps the evidence of a failure.
        server: forks the child if it can.

    Raises:
        UsageError: the workload's file cannot be imported, or its name is no workload.
        InterruptedRunError: the user stopped it.
        NoViableCellError: the child failed or hung; the message says where the evidence is.
        RunEndedError: the deadline has passed.
    """
    remove_left_over(_INSPECT)
    with owned_folder(_INSPECT) as folder:
        outcome = run_child(
            ChildSpec(kind="inspect", folder=str(folder), workload=workload, cell=make_cell()),
            time_limits=limits or TimeLimits(),
            evidence_folder=folder / "evidence",
            completion="inspection.json",
            deadline_s=deadline_s,
            on_tick=on_tick or _tell_of_silence(),
            stop=stop,
            times=StageTimes(is_run=True),  # its imports may take an unknown, long time
            server=server,
        )
        inspection = load_inspection(folder / "inspection.json")
        if outcome.interrupted or stop.finish:
            raise InterruptedRunError("interrupted")
        if outcome.cut_by_budget:
            raise RunEndedError(
                f"{workload.target}: its data was still being prepared when the time was over; "
                "nothing was started"
            )
        if inspection is not None:
            return inspection
        if outcome.error is not None and outcome.error.verdict == "usage":
            raise UsageError(outcome.error.message)
        kept = "" if run is None else _keep_evidence(folder / "evidence", run())
    raise NoViableCellError(
        f"{workload.target} cannot be inspected, so nothing was started: "
        f"{outcome.verdict}: {outcome.reason}{kept}"
    )


def _tell_of_silence() -> Callable[[Tick], None]:
    notice = SilenceNotice()

    def tell(tick: Tick) -> None:
        if line := notice(tick):
            say(f"inspecting the workload: {line}")

    return tell


def _keep_evidence(found: Path, run: RunFolder) -> str:
    """Move the evidence into the run folder; returns its place in words."""
    place = run.new_evidence("inspect")
    with suppress(OSError):
        shutil.copytree(found, place)
    return f"; evidence in {place}" if place.is_dir() else ""


def gather_facts(
    workload: WorkloadSpec, inspection: Inspection, examination: Examination | None = None
) -> HazardFacts:
    """The facts for the hazard rules: this machine's current limits, the workload, its source."""
    file, _, name = workload.target.rpartition(":")
    source = look_at_files(Path(file), name) if file else ()
    return known_facts(inspection, read_limits(), source, examination)
