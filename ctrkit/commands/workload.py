"""What `probe` and `train` do first: find the data, and let a child look at the workload."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ctrkit.commands.options import CommonOptions
from ctrkit.core.config import ChildSpec, WorkloadSpec, make_cell
from ctrkit.core.errors import CtrkitError, InterruptedRunError, UsageError
from ctrkit.core.records import Examination, Inspection
from ctrkit.core.registry import plugin_of
from ctrkit.core.runs import load_inspection, load_measurement
from ctrkit.probe.hazards.facts import HazardFacts, known_facts
from ctrkit.probe.hazards.limits import read_limits
from ctrkit.probe.hazards.source import look_at_source
from ctrkit.report.building import build_display
from ctrkit.supervise.stop import StopRequest
from ctrkit.supervise.supervisor import run_child
from ctrkit.supervise.time_limits import TimeLimits


def find_workload(common: CommonOptions, *, quiet: bool) -> WorkloadSpec:
    """The workload's spec, with its data checked; default data are made if they must be.

    Raises:
        UsageError: `--data` is not what the workload reads.
    """
    data = None if common.data is None else common.data.resolve()
    with build_display(quiet=quiet) as on_progress:
        data = plugin_of(common.target).prepare_data(data, on_progress)
    return WorkloadSpec(
        target=common.target,
        data=None if data is None else str(data),
        settings=common.settings,
    )


def inspect_workload(workload: WorkloadSpec, stop: StopRequest) -> Inspection:
    """Devices, sizes and fingerprints, found out by a child since only a child imports torch.

    Raises:
        UsageError: the workload's file cannot be imported, or its name is no workload.
        InterruptedRunError: stopped meanwhile.
        CtrkitError: the child failed or hung.
    """
    with tempfile.TemporaryDirectory(prefix="ctrkit-inspect-") as temporary:
        folder = Path(temporary)
        outcome = run_child(
            ChildSpec(kind="inspect", folder=temporary, workload=workload, cell=make_cell()),
            time_limits=TimeLimits(),
            evidence_folder=folder / "evidence",
            completion="inspection.json",
            stop=stop,
        )
        inspection = load_inspection(folder / "inspection.json")
        failed = load_measurement(folder / "measurement.json")
    if outcome.interrupted:
        raise InterruptedRunError("interrupted")
    if inspection is not None:
        return inspection
    if failed is not None and failed.error is not None:
        if failed.error.verdict == "usage":
            raise UsageError(failed.error.message)
        raise CtrkitError(f"{workload.target} cannot be used: {failed.error.message}")
    raise CtrkitError(f"{workload.target} cannot be inspected: {outcome.reason}")


def gather_facts(
    workload: WorkloadSpec, inspection: Inspection, examination: Examination | None = None
) -> HazardFacts:
    """What the hazard rules decide on: this machine's limits now, the workload and its source."""
    file, _, name = workload.target.rpartition(":")
    text = Path(file).read_text("utf-8", errors="replace") if file else ""
    return known_facts(inspection, read_limits(), look_at_source(text, name), examination)
