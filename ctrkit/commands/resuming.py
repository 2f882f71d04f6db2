"""Decides what `ctrkit train --resume` continues: the same experiment, its newest checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ctrkit.commands.options import CommonOptions
from ctrkit.commands.usable_checkpoint import SavedCheckpoint, recover
from ctrkit.core.bystander import say
from ctrkit.core.cell import WITHOUT_ANY_WORKERS, WITHOUT_WORKERS
from ctrkit.core.config import Cell, ChildSpec, TrainPlan, WorkloadSpec, decode, encode, make_cell
from ctrkit.core.environment import code_versions
from ctrkit.core.errors import UsageError
from ctrkit.core.files import read_json, write_json
from ctrkit.core.plugins import setting_differences
from ctrkit.core.registry import plugin_of, settings_of, source_version
from ctrkit.core.runs import RunFolder, named_settings


def save_spec(spec: ChildSpec) -> None:
    """Save the spec before anything is started, so that the run can be resumed from then on."""
    Path(spec.folder).mkdir(exist_ok=True)
    write_json(Path(spec.folder) / "spec.json", spec)


def given(argv: Sequence[str], *options: str) -> bool:
    """Whether one of these options is on the command line."""
    return any(word.partition("=")[0] in options for word in argv)


def resumable_spec(run: RunFolder, common: CommonOptions, argv: Sequence[str]) -> ChildSpec:
    """The spec that the run was started with, for the data named now.

    Raises:
        UsageError: it is missing, or another workload, phase or data was requested; the message has
            the difference.
    """
    path = run.path / "child" / "spec.json"
    if not path.is_file():
        raise UsageError(f"--resume {run.path}: it ended before it was set up; start a new run")
    spec = decode(ChildSpec, named_settings(read_json(path)), str(path))
    if spec.train is None:
        raise UsageError(f"{path}: has no train plan")
    workload = spec.workload
    if given(argv, "--workload") and common.target != workload.target:
        raise _refused(run, f"its workload is {workload.target}, not {common.target}")
    plugin = plugin_of(workload.target)
    workload = dataclasses.replace(
        workload, settings=settings_of(workload.target, workload.settings)
    )
    if given(argv, "--phase", "--set") and (
        words := setting_differences(plugin, workload.settings, common.settings)
    ):
        raise _refused(run, words)
    if common.data is not None:
        workload = dataclasses.replace(workload, data=str(common.data.resolve()))
    _check_data(run, workload)
    return dataclasses.replace(spec, workload=workload)


def _refused(run: RunFolder, words: str) -> UsageError:
    return UsageError(
        f"--resume {run.path}: {words}; leave that option out, or start a new run with it"
    )


def _check_data(run: RunFolder, workload: WorkloadSpec) -> None:
    """Check the data: before the first checkpoint, the child has nothing to compare it with."""
    then = run.info.data_fingerprint
    if workload.data is None or then is None:
        return
    now = plugin_of(workload.target).data_facts(Path(workload.data))
    if now is not None and now.fingerprint != then:
        now_rows = "" if now.train_rows is None else f" ({now.train_rows} training rows)"
        rows = "" if run.info.sizes is None else f" ({run.info.sizes.train_rows} training rows)"
        raise UsageError(
            f"--resume {run.path}: it was trained on data {then}{rows}, but {workload.data} now "
            f"holds {now.fingerprint}{now_rows}; name the folder of the old data with --data, or "
            "start a new run"
        )


def starting_point(run: RunFolder, workload: WorkloadSpec) -> bool:
    """Whether there is a checkpoint to continue from; prints what has changed since.

    Raises:
        UsageError: there are checkpoints, but none is whole.
    """
    saved = recover(run.path / "checkpoints")
    if saved is None:
        say("nothing was saved yet: it starts at its first step")
        return False
    if saved.problem:
        say(f"warning: {saved.problem}, epoch {saved.position.epoch}, batch {saved.position.batch}")
    if words := code_differences(saved, code_versions(source_version(workload.target))):
        say(
            f"warning: {words}; from here the numbers may differ in the last digits from those of "
            "an uninterrupted run"
        )
    return True


def code_differences(saved: SavedCheckpoint, now: Mapping[str, str]) -> str:
    """How the code that wrote the checkpoint differs from the current code; else empty."""
    differing = [name for name, version in saved.code.items() if now.get(name) != version]
    return ", ".join(
        "the workload's file has changed since the checkpoint"
        if name == "workload file"
        else f"the checkpoint is of {name} {saved.code[name]}, this is {now.get(name)}"
        for name in differing
    )


def kept_plan(
    plan: TrainPlan,
    argv: Sequence[str],
    *,
    epochs: int | None,
    max_steps: int | None,
    checkpoint_every_s: float,
    allow_sleep: bool,
    abort_after_s: float | None,
) -> TrainPlan:
    """The old plan with newly given options; `--epochs` also removes an old `--max-steps`."""
    changes: dict[str, Any] = {}
    if epochs is not None:
        changes |= {"epochs": epochs, "max_steps": max_steps}
    elif max_steps is not None:
        changes["max_steps"] = max_steps
    if given(argv, "--checkpoint-every"):
        changes["checkpoint_every_s"] = checkpoint_every_s
    if given(argv, "--allow-sleep", "--no-allow-sleep"):
        changes["allow_sleep"] = allow_sleep
    if given(argv, "--abort-if-later-than"):
        changes["abort_after_s"] = abort_after_s
    return dataclasses.replace(plan, **changes)


def with_axes(cell: Cell, axes: Mapping[str, Any]) -> Cell:
    """The cell with the given axes; axes of workers are set and removed with workers.

    Raises:
        UsageError: a loader without processes was requested together with workers.
    """
    if not axes:
        return cell
    values = encode(cell) | dict(axes)
    if not values["workers"]:
        values |= WITHOUT_ANY_WORKERS
    elif values["loader"] in WITHOUT_WORKERS:
        if "loader" in axes:
            raise UsageError(
                f"loader {values['loader']} has no worker processes; take --loader batches or "
                "--workers 0"
            )
        values["loader"] = "batches"
    return make_cell("options", **values)
