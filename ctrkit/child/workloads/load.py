"""Find the workload a spec names: `mdaf`, or NAME in a user's FILE.py."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from ctrkit.child.workloads.custom import CustomWorkload, heeded_axes
from ctrkit.child.workloads.protocol import Workload
from ctrkit.core.config import WorkloadSpec
from ctrkit.core.errors import UsageError


def load_workload(spec: WorkloadSpec) -> Workload:
    """The workload of a spec.

    Raises:
        UsageError: the file cannot be imported, lacks the name, or the name is no workload.
    """
    if spec.target == "mdaf":
        from ctrkit.ctr.workload import MdafWorkload

        if spec.data is None:
            raise UsageError("workload mdaf: it needs a store; give --data DIR")
        return MdafWorkload(Path(spec.data), spec.phase)
    file, _, name = spec.target.rpartition(":")
    module = _import_file(Path(file))
    if not hasattr(module, name):
        there = ", ".join(n for n, v in vars(module).items() if callable(v) and n[0] != "_")
        raise UsageError(f"--workload {file}: has no '{name}'; it has {there or 'no function'}")
    return _as_workload(getattr(module, name), spec, f"{Path(file).name}:{name}")


def _import_file(path: Path) -> ModuleType:
    """Import a user's file under its own name, so that spawned workers can import it as well."""
    folder, name = str(path.parent), path.stem
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        if name.isidentifier() and name not in sys.modules:
            return importlib.import_module(name)
        specification = importlib.util.spec_from_file_location(f"ctrkit_workload_{name}", path)
        assert specification is not None
        assert specification.loader is not None
        module = importlib.util.module_from_spec(specification)
        sys.modules[module.__name__] = module
        specification.loader.exec_module(module)
        return module
    except (Exception, SystemExit) as error:
        raise UsageError(f"--workload {path}: cannot be imported: {_where(error, path)}") from error


def _where(error: BaseException, path: Path) -> str:
    """The error and the user's own line that it came from."""
    text = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}".rstrip(
        ": "
    )
    line = error.lineno if isinstance(error, SyntaxError) else None
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == str(path):
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return f"{text} (line {line})" if line else text


def _as_workload(value: Any, spec: WorkloadSpec, name: str) -> Workload:
    if isinstance(value, type) and issubclass(value, Workload):
        value = value()
    if isinstance(value, Workload):
        return value
    if not callable(value):
        raise UsageError(
            f"--workload {name}: is a {type(value).__name__}; it must be a Workload, a function "
            "that returns one, or a function make_loader(*, workers, ...)"
        )
    if heeded_axes(value) or inspect.signature(value).parameters:
        _check_arguments(value, name)
        return CustomWorkload(value, spec.phase, name)
    # Without parameters only its result tells what it is; a loader it made is then the loader.
    made = value()
    return made if isinstance(made, Workload) else CustomWorkload(lambda: made, spec.phase, name)


def _check_arguments(make_loader: Any, name: str) -> None:
    """Every parameter must be an axis or have a default."""
    known = heeded_axes(make_loader)
    for parameter in inspect.signature(make_loader).parameters.values():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        if parameter.name not in known and parameter.default is parameter.empty:
            raise UsageError(
                f"--workload {name}: parameter '{parameter.name}' is no axis of a cell and has "
                "no default; axes are device, workers, start_method, prefetch, persistent, pin, "
                "threads, batch_size"
            )
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise UsageError(f"--workload {name}: '{parameter.name}' must be usable by name")
