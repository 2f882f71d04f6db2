"""`ctrkit doctor`: looks at machine and workload, lists known hazards, trains nothing."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from ctrkit.commands.inspection import find_workload, gather_facts
from ctrkit.commands.options import Axes, CommonOptions
from ctrkit.core.checkup import Checkup, HazardFinding, StageAllowance
from ctrkit.core.child_files import load_inspection, load_measurement
from ctrkit.core.child_records import Examination, Inspection
from ctrkit.core.config import Cell, ChildSpec, WorkloadSpec, decode, encode, make_cell
from ctrkit.core.environment import describe_environment
from ctrkit.core.errors import InterruptedRunError, NoViableCellError, UsageError
from ctrkit.core.files import finite, read_json
from ctrkit.core.owned_folders import owned_folder, remove_left_over
from ctrkit.core.progress import Stage
from ctrkit.core.registry import title_of
from ctrkit.probe.hazards.rules import RULES, findings_of
from ctrkit.probe.matrix import build_matrix
from ctrkit.report.doctor_view import doctor_view
from ctrkit.report.live import stderr_console
from ctrkit.report.terminal import print_report
from ctrkit.supervise.stop import StopRequest, handle_interrupts
from ctrkit.supervise.supervisor import run_child
from ctrkit.supervise.time_limits import StageLimit, TimeLimits

_LOADER_AXES = ("start_method", "prefetch", "persistent", "pin", "batch_size")
#: seconds to make a loader before doctor gives up; a probe allows it its own time limits
LOOK_S = 120.0


def doctor(*, common: CommonOptions, axes: Axes, as_json: bool, quiet: bool) -> None:
    """Print the hazards of the cells that `ctrkit probe` would try with the same options.

    Raises:
        UsageError: bad input of any kind.
        NoViableCellError: something would be refused.
        InterruptedRunError: stopped by the user.
    """
    workload = find_workload(common, quiet=quiet)
    if not quiet:
        stderr_console().print("inspecting the workload ...", style="dim")
    with handle_interrupts(graceful=False) as stop:
        inspection, examination = examine(workload, common, axes, stop)
    show(check_up(workload, common, axes, inspection, examination), as_json=as_json)


def show(checkup: Checkup, *, as_json: bool) -> None:
    """Print a checkup.

    Raises:
        NoViableCellError: something would be refused.
    """
    if as_json:
        json.dump(finite(document(checkup)), sys.stdout, indent=2, allow_nan=False)
        print()
    else:
        print_report([doctor_view(checkup)])
    names = [finding.hazard.name for finding in checkup.of_level("refusal")]
    names += [reason for _, reason in checkup.invalid]
    if names:
        raise NoViableCellError(f"some configurations would be refused: {'; '.join(names)}")


def examine(
    workload: WorkloadSpec, common: CommonOptions, axes: Axes, stop: StopRequest
) -> tuple[Inspection, Examination]:
    """Let a child examine the workload; problems of its loader become findings.

    Raises:
        UsageError: the workload's file cannot be imported, or its name is no workload.
        InterruptedRunError: the user stopped it.
    """
    device = next((d for d in axes.get("device", ()) if d not in ("auto", "cpu")), "cpu")
    cell = make_cell(device=device, **_asked(axes))
    remove_left_over("ctrkit-doctor-")
    with owned_folder("ctrkit-doctor-") as folder:
        outcome = run_child(
            ChildSpec(kind="examine", folder=str(folder), workload=workload, cell=cell),
            time_limits=common.time_limits.of_cell(cell),
            evidence_folder=folder / "evidence",
            completion="examination.json",
            deadline_s=time.monotonic() + LOOK_S,
            stop=stop,
        )
        inspection = load_inspection(folder / "inspection.json")
        failed = load_measurement(folder / "measurement.json")
        path = folder / "examination.json"
        found = decode(Examination, read_json(path), str(path)) if path.is_file() else None
    if outcome.interrupted:
        raise InterruptedRunError("interrupted")
    problem = f"ctrkit could not inspect it ({outcome.verdict}): {outcome.reason}"
    if outcome.cut_by_budget:
        problem = f"making the loader took longer than {LOOK_S:.0f} s"
    if failed is not None and failed.error is not None:
        if failed.error.verdict == "usage":
            raise UsageError(failed.error.message)
        problem = failed.error.message
    inspection = inspection or _unknown(workload, axes)
    return inspection, found or Examination(problem=problem, needs=inspection.needs)


def _asked(axes: Axes) -> dict[str, Any]:
    """The first value of each axis that affects making a loader.

    Of workers, the smallest above 0.
    """
    named = {axis: axes[axis][0] for axis in _LOADER_AXES if axis in axes}
    workers = min((count for count in axes.get("workers", (1,)) if count), default=0)
    return named | {"workers": workers} if workers else named


def _unknown(workload: WorkloadSpec, axes: Axes) -> Inspection:
    """The inspection of a loader about which nothing is known except that it fails."""
    devices = [device for device in axes.get("device", ()) if device != "auto"] or ["cpu"]
    return Inspection(
        devices=devices,
        device_names={},
        torch_version="",
        workload_name=workload.target.rpartition("/")[2],
        workload_fingerprint="",
        data_fingerprint="",
        axes=["device", "workers", "start_method", "prefetch", "batch_size"],
        loaders=["custom"],
        default_batch_size=make_cell().batch_size,
        has_task=False,
        sizes=None,
    )


def check_up(
    workload: WorkloadSpec,
    common: CommonOptions,
    axes: Axes,
    inspection: Inspection,
    examination: Examination,
) -> Checkup:
    """What the rules say about the cells that a probe would try."""
    facts = gather_facts(workload, inspection, examination)
    plan = build_matrix(inspection, axes, run_refused=True, facts=facts)
    return Checkup(
        inspection=inspection,
        examination=examination,
        limits=facts.limits,
        phase=title_of(workload),
        cells=plan.cells,
        invalid=plan.refused,
        findings=tuple(findings_of(plan.cells, facts)),
        notes=plan.notes,
        rules=len(RULES),
        versions=describe_environment()["versions"],
        allowances=stage_allowances(plan.cells, common.time_limits),
    )


def stage_allowances(cells: Sequence[Cell], time_limits: TimeLimits) -> tuple[StageAllowance, ...]:
    """Time limits: how long each stage may make no progress, of the cell with the most workers."""
    cell = max(cells, key=lambda cell: cell.workers, default=make_cell())
    time_limits = time_limits.of_cell(cell)
    found = []
    for stage in Stage:
        found.append(_allowance(stage.label, time_limits.for_stage(stage)))
        if stage is Stage.STEP and time_limits.stall_timeout_s is None:
            least = time_limits.for_stage(stage, (0.0,) * time_limits.enough_steps)
            reason = f"at least; or {time_limits.steady_factor:g} x the median step"
            found.append(_allowance("later steps", dataclasses.replace(least, reason=reason)))
    return tuple(found)


def _allowance(stage: str, limit: StageLimit) -> StageAllowance:
    return StageAllowance(
        stage=stage, idle_s=limit.idle_s, burning_s=limit.burning_s, reason=limit.reason
    )


def document(checkup: Checkup) -> dict[str, Any]:
    """The JSON document of `--json`."""
    refused = [_finding(finding) for finding in checkup.of_level("refusal")]
    refused += [
        {"name": "no such cell", "text": reason, "cells": [cell.name]}
        for cell, reason in checkup.invalid
    ]
    return {
        "refused": refused,
        "warnings": [_finding(finding) for finding in checkup.of_level("warning")],
        "notes": [_finding(finding) for finding in checkup.of_level("note")],
        "left_out": list(checkup.notes),
        "cells": len(checkup.cells),
        "machine": encode(checkup.limits) | {"versions": dict(checkup.versions)},
        "workload": {"name": checkup.inspection.workload_name} | encode(checkup.examination),
        **({} if checkup.script is None else {"script": encode(checkup.script)}),
        "budgets": [encode(allowance) for allowance in checkup.allowances],
    }


def _finding(finding: HazardFinding) -> dict[str, Any]:
    return dict(encode(finding.hazard)) | {"cells": [cell.name for cell in finding.cells]}
