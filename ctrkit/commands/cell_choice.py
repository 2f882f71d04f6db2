"""Chooses the cell of a real run, and finds the time that was projected for it."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ctrkit.commands.recommended_of import warning_for_workload
from ctrkit.core.cell import AXES, WITHOUT_ANY_WORKERS, WITHOUT_WORKERS
from ctrkit.core.child_records import Inspection
from ctrkit.core.config import CELL_AXES, NUMERICS, Cell, decode, encode, make_cell
from ctrkit.core.errors import UsageError
from ctrkit.core.files import read_json
from ctrkit.core.records import Recommendation
from ctrkit.core.runs import RunFolder
from ctrkit.probe.matrix import own_values
from ctrkit.probe.scripts.as_written import NO_LOADER, SCRIPT_LOADER


@dataclass(frozen=True, kw_only=True)
class CellChoice:
    """A cell, the reason for it, and the recommendation it comes from if unchanged.

    `warning`: what is wrong with that recommendation, in one line.
    """

    cell: Cell
    why: str
    projection: Recommendation | None = None
    warning: str = ""


def default_choice(inspection: Inspection, axes: Mapping[str, Any]) -> CellChoice:
    """The defaults of `ctrkit train`, with the axes that the user gave."""
    own = {axis: value[0] for axis, value in own_values(inspection).items() if axis not in axes}
    values: dict[str, Any] = {"batch_size": inspection.default_batch_size} | own | dict(axes)
    if not values.get("workers"):
        values |= {axis: value for axis, value in WITHOUT_ANY_WORKERS.items() if axis in own}
    usual = "batches" if values.get("workers") else "thread"
    if "loader" not in inspection.axes or usual not in inspection.loaders:
        usual = inspection.loaders[0]
    if "loader" in inspection.axes:
        values.setdefault("loader", usual)
    else:
        values["loader"] = usual
    named = ", ".join(f"{axis}={value}" for axis, value in axes.items())
    why = f"the default configuration with {named}" if named else "the default cell"
    if own:
        kept = ", ".join(f"{axis}={value}" for axis, value in own.items())
        why += f", {inspection.workload_name}'s own defaults kept: {kept}"
    return CellChoice(
        cell=make_cell("options", **values), why=f"{why} (ctrkit probe may find a better one)"
    )


def unmeasured_choice(inspection: Inspection, axes: Mapping[str, Any], reason: str) -> CellChoice:
    """The default cell if a probe had no result: then the run itself shows how long it takes.

    Args:
        inspection: inspection of the workload.
        axes: the axes that the user gave.
        reason: why no cell could be measured.
    """
    choice = default_choice(inspection, axes)
    what = choice.why.partition(" (")[0]
    return CellChoice(
        cell=choice.cell,
        why=f"{what}. It was not measured: {reason}. The run's first minutes will show its pace",
    )


def choice_from_file(path: Path, inspection: Inspection, axes: Mapping[str, Any]) -> CellChoice:
    """`--config`: a `recommendation.json` or a cell's axes; options override them.

    Raises:
        UsageError: the file is missing, is no JSON object, or has an unknown axis or a bad value.
    """
    values = read_json(path)
    if not isinstance(values, dict):
        raise UsageError(
            f'{path}: must be a JSON object: a recommendation, or axes such as {{"workers": 4}}'
        )
    if "cell" not in values:
        for key in values:
            if key not in (*CELL_AXES, "unheeded"):
                raise UsageError(
                    f"{path}: unknown axis '{key}'; the known ones are {', '.join(CELL_AXES)}"
                )
        base: dict[str, Any] = {"batch_size": inspection.default_batch_size}
        base |= {axis: value[0] for axis, value in own_values(inspection).items()}
        if "loader" not in inspection.axes:
            base["loader"] = inspection.loaders[0]
        return CellChoice(
            cell=make_cell(str(path), **{**base, **values, **axes}), why=f"from {path}"
        )
    recommendation = decode(Recommendation, values, str(path))
    script = recommendation.origin.workload.script if recommendation.origin else None
    if script is not None and recommendation.cell.loader in (SCRIPT_LOADER, NO_LOADER):
        command = shlex.join(["ctrkit", "train", "--config", str(path), "--", *script.command])
        raise UsageError(f"--config {path}: recommends for a script; write its command: {command}")
    cell = make_cell(str(path), **encode(recommendation.cell))
    warning = warning_for_workload(path, recommendation, inspection)
    choice = CellChoice(
        cell=cell,
        why=f"from {path}",
        projection=None if warning else recommendation,
        warning=warning,
    )
    return _override(choice, axes)


def _override(choice: CellChoice, axes: Mapping[str, Any]) -> CellChoice:
    if all(getattr(choice.cell, axis) == value for axis, value in axes.items()):
        return choice
    values = encode(choice.cell) | dict(axes)
    if not values["workers"]:
        values |= WITHOUT_ANY_WORKERS
    named = ", ".join(f"{axis}={value}" for axis, value in axes.items())
    cell = make_cell("options", **values)
    why = f"{choice.why}, with {named} as you asked (so not projected)"
    return CellChoice(cell=cell, why=why, warning=choice.warning)


def newest_fitting(
    runs: Iterable[Path],
    machine_fingerprint: str,
    inspection: Inspection,
    axes: Mapping[str, Any],
    cells: Collection[Cell] = (),
) -> CellChoice | None:
    """The newest recommendation for this machine, workload and data with the requested axes.

    Batch size and numerics must be the phase's unless the user asked for others, since they change
    the experiment. A probe that searched all of `cells`, which one would search now, is preferred
    to a narrower one. A probe of a single cell, or an interrupted one, chose nothing.
    """
    wanted = {"batch_size": inspection.default_batch_size, **NUMERICS} | dict(axes)
    narrower: CellChoice | None = None
    for run, recommendation in _finished_probes(runs, machine_fingerprint, inspection):
        fits = recommendation.cell.device in inspection.devices and all(
            getattr(recommendation.cell, axis) == value for axis, value in wanted.items()
        )
        searched = {record.cell for record in run.trials()}
        missing = len(set(cells) - searched)
        if not fits or (missing and len(searched) < 2):
            continue
        why = f"recommended by the probe of {run.info.created} ({recommendation.reason})"
        if missing:
            why += (
                f"; it did not try {missing} of the {len(cells)} configurations that a probe would "
                "try now"
            )
        choice = CellChoice(cell=recommendation.cell, why=why, projection=recommendation)
        if not missing:
            return choice
        narrower = narrower or choice
    return narrower


def with_projection(
    choice: CellChoice, runs: Iterable[Path], machine_fingerprint: str, inspection: Inspection
) -> CellChoice:
    """The choice with the newest probe's projection for exactly this cell, if there is one."""
    for run, recommendation in _finished_probes(runs, machine_fingerprint, inspection):
        if recommendation.cell == choice.cell:
            why = f"{choice.why}; projected by the probe of {run.info.created}"
            return CellChoice(cell=choice.cell, why=why, projection=recommendation)
    return choice


def _finished_probes(
    runs: Iterable[Path], machine_fingerprint: str, inspection: Inspection
) -> Iterator[tuple[RunFolder, Recommendation]]:
    """Finished probes of this machine, workload and data, the newest first."""
    for path in runs:
        try:
            run = RunFolder.open(path)
            recommendation = run.recommendation() if run.info.command == "probe" else None
            run.trials()
        except UsageError:
            continue  # the folder is damaged, or of another version
        if (
            recommendation is not None
            and run.info.status == "done"
            and run.info.machine_fingerprint == machine_fingerprint
            and run.info.workload_fingerprint == inspection.workload_fingerprint
            and run.info.data_fingerprint == inspection.data_fingerprint
        ):
            yield run, recommendation


def check_cell(choice: CellChoice, inspection: Inspection) -> CellChoice:
    """Check that this machine and workload can run the cell.

    Raises:
        UsageError: the device is not available, or the workload has no such loader.
    """
    cell = choice.cell
    if cell.device not in inspection.devices:
        there = ", ".join(inspection.devices)
        raise UsageError(f"device {cell.device} is not available here; there is {there}")
    if cell.loader not in inspection.loaders:
        known = ", ".join(inspection.loaders)
        raise UsageError(f"loader {cell.loader}: the workload has {known}")
    if cell.nproc > 1 and "nproc" not in inspection.axes:
        raise UsageError(
            f"--nproc {cell.nproc}: {inspection.workload_name} cannot share a batch among several "
            "processes; take --nproc 1"
        )
    if problem := AXES["nproc"].device_problem(cell.nproc, cell.device):
        raise UsageError(f"--nproc {cell.nproc}: {problem}; take --device cpu")
    if cell.workers and cell.loader in WITHOUT_WORKERS:
        raise UsageError(
            f"loader {cell.loader} has no worker processes; take --loader batches or --workers 0"
        )
    return replace(choice, cell=replace(cell, unheeded=inspection.unheeded))
