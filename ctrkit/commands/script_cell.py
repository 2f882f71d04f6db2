"""Chooses the configuration that a script trains in: as written, or with some axes changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctrkit.commands.recommended_of import warning_for_script, warning_if_edited
from ctrkit.core.cell import WITHOUT_ANY_WORKERS
from ctrkit.core.command_line import PUT_IN, placeholders_of, shown_script
from ctrkit.core.config import (
    CELL_AXES,
    Cell,
    ChildSpec,
    ScriptSpec,
    decode,
    encode,
    make_cell,
)
from ctrkit.core.errors import UsageError
from ctrkit.core.files import read_json
from ctrkit.core.records import Recommendation
from ctrkit.core.runs import RunFolder
from ctrkit.core.script_records import ScriptSeen
from ctrkit.probe.scripts.as_written import SCRIPT_LOADER, as_written_cell


@dataclass(frozen=True, kw_only=True)
class ScriptChoice:
    """A configuration of a script.

    Attributes:
        put_in: axes that the observer changes from inside.
        projection: projection of the recommendation it comes from, if unchanged.
        warning: what is wrong with that recommendation, in one line.
    """

    cell: Cell
    why: str
    put_in: list[str]
    projection: Recommendation | None = None
    warning: str = ""


def choose_script_cell(
    script: ScriptSpec,
    wanted: Mapping[str, Any],
    config: Path | None,
    recommended: Recommendation | None,
    recommended_by: str = "a probe",
) -> ScriptChoice:
    """Choose the configuration that the options request.

    Args:
        script: the script.
        wanted: the axes that the user gave, with one value each.
        config: `--config`: a recommendation or an object of axes.
        recommended: the recommendation of a probe of this script, for `--auto-device`.
        recommended_by: the probe that it comes from.

    Raises:
        UsageError: an axis cannot be changed in this script, or a placeholder has no value.
    """
    named = placeholders_of(script.command)
    _check_axes(wanted, named, "--{}")
    values: dict[str, Any] = {}
    why, projection, warning = "as written: nothing of the script is changed", None, ""
    if config is not None:
        values, projection = _read_config(config, named)
        _check_axes(values, named, f"{config}: {{}}")
        why = f"from {config}"
        if projection is not None:
            warning = warning_for_script(config, projection, script)
            projection = None if warning else projection
    elif recommended is not None:
        values, projection = _changes(recommended, named), recommended
        why = f"recommended by {recommended_by} ({recommended.reason})"
        warning = warning_if_edited(recommended, script, of=recommended.probe or recommended_by)
        projection = None if warning else recommended
    if projection is not None and any(values.get(axis) != v for axis, v in wanted.items()):
        projection = None
    values |= wanted
    for axis in named:
        if axis not in values and not (axis in ("prefetch", "start_method") and values):
            option = axis.replace("_", "-")
            raise UsageError(f"{{{axis}}} in the command: give its value, as in --{option} VALUE")
    put_in = [axis for axis in PUT_IN if axis in values and axis not in named]
    if wanted:
        listed = ", ".join(f"{axis.replace('_', ' ')} {value}" for axis, value in wanted.items())
        why = f"{why}, with {listed}" if config or recommended else f"with {listed}, as you asked"
    cell = make_cell("options", **({"loader": SCRIPT_LOADER} | _consistent(values)))
    return ScriptChoice(cell=cell, why=why, put_in=put_in, projection=projection, warning=warning)


def seen_cell(spec: ChildSpec, seen: ScriptSeen) -> Cell:
    """The observed configuration of a script: as written, except for requested changes.

    Raises:
        UsageError: what was observed is no configuration.
    """
    script = spec.workload.script
    assert script is not None, "only a script is seen"
    cell = as_written_cell(script, seen, {})
    asked = {axis: getattr(spec.cell, axis) for axis in spec.put_in}
    values = {**encode(cell), **asked}
    if not values["workers"]:
        values |= WITHOUT_ANY_WORKERS
    elif values["start_method"] is None:
        values["start_method"] = seen.default_start_method or None
    return make_cell("the script as seen", **values)


def _consistent(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values without those that need workers, if there are none."""
    if values.get("workers") == 0:
        return {k: v for k, v in values.items() if k not in ("start_method", "prefetch")}
    return dict(values)


def _check_axes(values: Mapping[str, Any], named: tuple[str, ...], where: str) -> None:
    for axis in values:
        if axis in PUT_IN or axis in named:
            continue
        option = where.format(axis.replace("_", "-") if "--" in where else axis)
        if axis in ("device", "batch_size", "nproc"):
            raise UsageError(
                f"{option}: use the script's own flag for that; write {{{axis}}} in the "
                f"command: -- python train.py --{axis} {{{axis}}}"
            )
        raise UsageError(f"{option}: cannot be changed in a script; leave this option out")


def _read_config(
    path: Path, named: tuple[str, ...]
) -> tuple[dict[str, Any], Recommendation | None]:
    values = read_json(path)
    if not isinstance(values, dict):
        raise UsageError(
            f'{path}: must be a JSON object: a recommendation, or axes such as {{"workers": 4}}'
        )
    if "cell" in values:
        recommendation = decode(Recommendation, values, str(path))
        return _changes(recommendation, named), recommendation
    for key in values:
        if key not in CELL_AXES:
            raise UsageError(
                f"{path}: unknown axis '{key}'; the known ones are {', '.join(CELL_AXES)}"
            )
    return {key: value for key, value in values.items() if value is not None}, None


def _changes(recommendation: Recommendation, named: tuple[str, ...]) -> dict[str, Any]:
    """The axes that a recommendation changes; only placeholders if it is as written."""
    cell = recommendation.cell
    answer = getattr(recommendation, "script", None)
    is_as_written = answer is not None and answer.as_written == cell
    axes = named if is_as_written else (*PUT_IN, *named)
    return {axis: value for axis in axes if (value := getattr(cell, axis)) is not None}


def recommended_for(
    script: ScriptSpec, runs: Iterable[Path], machine_fingerprint: str
) -> Recommendation | None:
    """The newest recommendation from a probe of this command on this machine."""
    shown = shown_script(script)
    for path in runs:
        try:
            run = RunFolder.open(path)
            probed = run.info.workload.script
            if run.info.command != "probe" or probed is None:
                continue
            same = (probed.command, probed.folder) == (shown.command, shown.folder)
            if same and run.info.machine_fingerprint == machine_fingerprint:
                found = run.recommendation()
                if found is not None:
                    return found
        except UsageError:
            continue  # the folder is damaged, or of another version
    return None
