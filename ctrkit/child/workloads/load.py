"""Finds the workload that a spec names: a plug-in's, or NAME in a user's FILE.py."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

from ctrkit.child.workloads.custom import CustomWorkload, MakeLoader, axes_of_signature
from ctrkit.child.workloads.protocol import Workload
from ctrkit.child.workloads.returned import checked_batches, is_iterator
from ctrkit.child.workloads.user_file import defined_at, import_user_file
from ctrkit.core.cell import CELL_AXES
from ctrkit.core.config import WorkloadSpec
from ctrkit.core.errors import UsageError
from ctrkit.core.plugins import Plugin
from ctrkit.core.registry import find_plugin, is_file_target


def load_workload(spec: WorkloadSpec) -> Workload:
    """Load the workload of a spec.

    Raises:
        UsageError: the file cannot be imported or lacks the name, or the name is no workload.
    """
    if not is_file_target(spec.target):
        return _of_plugin(spec)
    file, _, name = spec.target.rpartition(":")
    module = import_user_file(Path(file))
    if not hasattr(module, name):
        raise UsageError(f"--workload {file}: {_lacks(Path(file), module, name)}")
    return _as_workload(getattr(module, name), spec, f"{Path(file).name}:{name}")


def _lacks(path: Path, module: ModuleType, name: str) -> str:
    line = defined_at(path, name)
    if line is not None:
        return (f"has no '{name}' when it is imported: line {line} defines it, but does not run "
                "then; define it at the top of the file, outside `if __name__ == ...`")  # fmt: skip
    there = ", ".join(
        key for key, value in vars(module).items()
        if callable(value) and key[0] != "_" and getattr(value, "__module__", "") == module.__name__
    )  # fmt: skip
    return f"has no '{name}'; it has {there or 'no function'}"


def _of_plugin(spec: WorkloadSpec) -> Workload:
    plugin = find_plugin(spec.target)
    made = plugin.workload(plugin.typed(spec.settings, f"workload {spec.target}"), spec.data)
    if not isinstance(made, Workload):
        raise UsageError(
            f"--workload {spec.target}: its plug-in made a {type(made).__name__}; it must be a "
            "ctrkit.workloads.Workload"
        )
    if made.watch is None:
        made.watch = plugin.watch
    return made


def _as_workload(value: Any, spec: WorkloadSpec, name: str) -> Workload:
    if isinstance(value, Plugin) or (isinstance(value, type) and issubclass(value, Plugin)):
        raise UsageError(
            f"--workload {name}: is a Plugin; register it as an entry point of the group "
            "ctrkit.workloads and use it by its name (docs/workload.md), or name its Workload"
        )
    if isinstance(value, type) and issubclass(value, Workload):
        value = value()
    if isinstance(value, Workload):
        return _with_own_settings(value, spec, name)
    if not callable(value):
        raise UsageError(
            f"--workload {name}: is a {type(value).__name__}; it must be a Workload, a function "
            "that returns one, or a function make_loader(*, workers, ...)"
        )
    if axes_of_signature(value) or inspect.signature(value).parameters:
        _check_arguments(value, name)
        return CustomWorkload(value, name, **spec.settings)
    # A function without parameters may return a workload or a loader: only its result tells. A
    # loader made here is kept for the trial.
    made = value()
    if isinstance(made, Workload):
        return _with_own_settings(made, spec, name)
    checked_batches(made, name)
    return CustomWorkload(_made_already(value, made), name, **spec.settings)


def _with_own_settings(workload: Workload, spec: WorkloadSpec, name: str) -> Workload:
    """The workload of a `Workload` class, which takes no `--set`."""
    for key, value in spec.settings.items():
        raise UsageError(
            f"--set {key}={value}: {name} is a Workload, which says its {key} itself; change its "
            "file"
        )
    return workload


def _made_already(make_loader: MakeLoader, made: Any) -> MakeLoader:
    """`make_loader` without calling it twice for the loader that was `made` already.

    If `made` can be iterated again, every call returns it; otherwise only the first call does.
    """
    waiting = [made]
    if not is_iterator(made):
        return lambda: made
    return lambda: waiting.pop() if waiting else make_loader()


def _check_arguments(make_loader: Any, name: str) -> None:
    """Check that every parameter is an axis or has a default."""
    known = axes_of_signature(make_loader)
    for parameter in inspect.signature(make_loader).parameters.values():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        if parameter.name not in known and parameter.default is parameter.empty:
            raise UsageError(
                f"--workload {name}: parameter '{parameter.name}' is no axis of a cell and has "
                f"no default; axes are {', '.join(CELL_AXES)}"
            )
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise UsageError(f"--workload {name}: '{parameter.name}' must be usable by name")
