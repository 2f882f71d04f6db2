"""How a script is started: its arguments, its folder, and an environment with the observer."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import ctrkit
from ctrkit.core.command_line import filled
from ctrkit.core.config import ChildSpec
from ctrkit.core.lifeline import FIRST_FOLDER, OUTER_RANK_VARIABLE, local_rank_of

#: `1` in the environment of a script: observe its Python processes.
SCRIPT_VARIABLE = "CTRKIT_SCRIPT"
_PACKAGE_FOLDER = "observer"

#: Variables that keep known trackers from reporting a trial as a run.
TRACKERS_OFF = {
    "WANDB_MODE": "offline",
    "WANDB_SILENT": "true",
    "COMET_MODE": "disabled",
    "NEPTUNE_MODE": "offline",
    "CLEARML_OFFLINE_MODE": "1",
    "DVCLIVE_TEST": "true",
    "AIM_TRACKING_DISABLED": "1",
    "SWANLAB_MODE": "disabled",
}


@dataclass(frozen=True, kw_only=True)
class Invocation:
    """A command to run.

    Attributes:
        folder: the working folder; None for the caller's.
        is_script: it is a script's command, and may read its input.
    """

    argv: list[str]
    folder: str | None
    environment: dict[str, str]
    is_script: bool = False


def script_invocation(
    spec: ChildSpec, child_folder: Path, inherited: Mapping[str, str], *, trial: bool
) -> Invocation:
    """How to start the script of a spec.

    Args:
        spec: a script's spec; its cell's values replace the placeholders.
        child_folder: gets a link to this package, so that an interpreter without ctrkit finds the
            observer.
        inherited: the caller's environment.
        trial: whether it is a trial, whose trackers must stay silent.
    """
    script = spec.workload.script
    assert script is not None, "the workload is a script"
    environment = dict(inherited)
    if trial:
        environment |= TRACKERS_OFF
        environment["MLFLOW_TRACKING_URI"] = (child_folder / "mlflow").as_uri()
    environment |= script.environment | {SCRIPT_VARIABLE: "1"}
    # with `srun ctrkit train -- ...`, each rank has its own supervisor
    environment[OUTER_RANK_VARIABLE] = local_rank_of(inherited)
    path = [str(FIRST_FOLDER), str(_linked_package(child_folder))]
    own = environment.get("PYTHONPATH")  # the script's own path follows ours
    environment["PYTHONPATH"] = os.pathsep.join([*path, *([own] if own else [])])
    return Invocation(
        argv=filled(script.command, spec.cell),
        folder=script.folder,
        environment=environment,
        is_script=True,
    )


def _linked_package(child_folder: Path) -> Path:
    """A folder with only a link to this package, so that it hides no other module."""
    folder = child_folder / _PACKAGE_FOLDER
    folder.mkdir(exist_ok=True)
    link = folder / "ctrkit"
    if not link.is_symlink():
        link.symlink_to(Path(ctrkit.__file__).parent, target_is_directory=True)
    return folder
