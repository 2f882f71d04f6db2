"""Checks the options that several commands share, before anything is built or started."""

from __future__ import annotations

import dataclasses
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctrkit.core.bystander import say
from ctrkit.core.cell import AXES
from ctrkit.core.config import DEFAULT_WORKLOAD, LOADER_SETTINGS, WorkloadSpec
from ctrkit.core.errors import UsageError
from ctrkit.core.registry import find_plugin, is_file_target
from ctrkit.core.runs import RunFolder, check_out_folder
from ctrkit.core.units import parse_duration_s
from ctrkit.supervise.time_limits import TimeLimits

Axes = Mapping[str, tuple[Any, ...]]
"""The values of each axis named on the command line, in the given order."""

_LIMIT_NUMBERS = ("steady_factor",)
_LIMIT_DURATIONS = tuple(
    f.name.removesuffix("_s")
    for f in dataclasses.fields(TimeLimits)
    if f.name.endswith("_s") and f.name != "stall_timeout_s"
)


@dataclass(frozen=True, kw_only=True)
class CommonOptions:
    """The options that `probe` and `train` share.

    Args:
        data: the folder of `--data`.
        target: the name of a plug-in, or an absolute `FILE.py:NAME`.
        settings: the plug-in's settings as plain values.
        time_limits: how long each stage may be silent.
        out: the run folder of `--out`.
        epochs: number of epochs of the run, if the user gave it.
    """

    data: Path | None
    target: str
    settings: dict[str, Any]
    time_limits: TimeLimits
    out: Path | None
    epochs: int | None = None


def _resumable(path: Path) -> WorkloadSpec:
    spec = RunFolder.open(path).info.workload
    if spec.script is not None:
        raise UsageError(
            f"--resume {path}: is of a script; ctrkit resumes only workloads. Start the script "
            f"again, it may resume by itself: ctrkit train -- {shlex.join(spec.script.command)}"
        )
    return spec


def read_common(
    data: Path | None,
    phase: str | None,
    workload: str | None,
    set_: Sequence[str] | None,
    time_limits: TimeLimits,
    out: Path | None,
    resume: Path | None = None,
    epochs: int | None = None,
) -> CommonOptions:
    """Check the options; without `--workload`, a resumed run names it.

    Raises:
        UsageError: an unknown phase or key, no such workload, an output folder in use, ...
    """
    if out is not None:
        check_out_folder(out)
    if epochs is not None and epochs < 1:
        raise UsageError(f"--epochs: is {epochs}, but must be at least 1")
    if workload is None and resume is not None:
        target = _resumable(resume).target
    else:
        target = _target(workload)
    if is_file_target(target):
        _refuse_settings(target, phase, data)
        settings = _loader_settings(target, _overrides(set_ or ()))
    else:
        plugin = find_plugin(target)
        if data is not None and not plugin.takes_data:
            raise UsageError(f"--data {data}: workload {target} brings its own data")
        settings = plugin.plain(plugin.read_settings(phase, _overrides(set_ or ())))
        if plugin.imports_torch:
            say(
                f"workload {target}: its plug-in imports torch, so every command starts seconds "
                "later; import it inside Plugin.workload"
            )
    return CommonOptions(
        data=data,
        target=target,
        settings=settings,
        time_limits=time_limits,
        out=out,
        epochs=epochs,
    )


def _refuse_settings(target: str, phase: str | None, data: Path | None) -> None:
    """Refuse settings for a file's workload, which has its values in the file."""
    for option, value in (("--phase", phase), ("--data", data)):
        if value is not None:
            raise UsageError(
                f"{option} {value}: {Path(target).name} has its data and settings in its file; "
                f"leave {option} out, or make the workload a plug-in that takes it"
            )


def _loader_settings(target: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The `--set` values of a file's workload: length of the real run, and batch size."""
    for key, value in overrides.items():
        if key not in LOADER_SETTINGS:
            raise UsageError(
                f"--set {key}={value}: {Path(target).name} has its settings in its file; only "
                f"{' and '.join(LOADER_SETTINGS)} can be set, or make the workload a plug-in"
            )
        if not str(value).isdigit() or int(value) < 1:
            raise UsageError(f"--set {key}={value}: must be a whole number, at least 1")
    return {key: int(value) for key, value in overrides.items()}


def duration_s(option: str, text: str | None) -> float | None:
    """Seconds of an option's duration; None without one.

    Raises:
        UsageError: it is no duration; the message names the option.
    """
    try:
        return None if text is None else parse_duration_s(text)
    except UsageError as error:
        raise UsageError(f"{option}: {error}") from None


def read_time_limits(
    stall_timeout: str | None = None,
    max_step: str | None = None,
    file: Path | None = None,
    *,
    defaults: TimeLimits | None = None,
) -> TimeLimits:
    """The time limits of each stage: the defaults, `--time-limits FILE` and the two options.

    Raises:
        UsageError: no duration, no such file, an unknown key, ...
    """
    changes: dict[str, Any] = {} if file is None else _time_limits_file(file)
    for name, option, text in (
        ("stall_timeout_s", "--stall-timeout", stall_timeout),
        ("max_step_s", "--max-step", max_step),
    ):
        if text is not None:
            changes[name] = duration_s(option, text)
    return dataclasses.replace(defaults or TimeLimits(), **changes)


def _time_limits_file(path: Path) -> dict[str, float]:
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"--time-limits {path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--time-limits {path}: not valid TOML: {error}") from None
    changes: dict[str, float] = {}
    for key, value in values.items():
        where = f"--time-limits {path}: {key}"
        if key in _LIMIT_NUMBERS:
            if isinstance(value, bool) or not isinstance(value, int | float) or value < 1:
                raise UsageError(f"{where}: is {value!r}, but must be a number of at least 1")
            changes[key] = value
        elif key in _LIMIT_DURATIONS:
            seconds = duration_s(where, str(value))
            assert seconds is not None
            changes[f"{key}_s"] = seconds
        else:
            known = ", ".join((*_LIMIT_DURATIONS, *_LIMIT_NUMBERS))
            raise UsageError(f"{where}: unknown key; known are {known}")
    return changes


def _overrides(texts: Sequence[str]) -> dict[str, str]:
    values = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UsageError(f"--set {text}: write KEY=VALUE, for example --set model=bst")
        values[key.strip()] = value.strip()
    return values


def _target(workload: str | None) -> str:
    if workload is None:
        return DEFAULT_WORKLOAD
    file, colon, name = workload.rpartition(":")
    if not colon and not workload.endswith(".py"):
        return find_plugin(workload).name
    if not name.isidentifier() or not file.endswith(".py"):
        raise UsageError(
            f"--workload {workload}: write FILE.py:NAME, for example my.py:make_loader"
        )
    path = Path(file)
    if not path.is_file():
        raise UsageError(f"--workload {workload}: there is no file {path}")
    return f"{path.resolve()}:{name}"


def cell_axes(texts: Mapping[str, str | None]) -> Axes:
    """The axes that the user gave, as lists of checked values.

    Raises:
        UsageError: a value has a wrong type, is unknown, or is out of range.
    """
    return {
        name: tuple(dict.fromkeys(AXES[name].read(part.strip()) for part in text.split(",")))
        for name, text in texts.items()
        if text is not None
    }


def single_axes(axes: Axes) -> dict[str, Any]:
    """The axes of one cell, for a command that runs only one.

    Raises:
        UsageError: an axis has several values.
    """
    for axis, values in axes.items():
        if len(values) > 1:
            listed = ",".join(str(value) for value in values)
            raise UsageError(
                f"{AXES[axis].option} {listed}: training takes one value; "
                "ctrkit probe compares several"
            )
    return {axis: values[0] for axis, values in axes.items() if values[0] != "auto"}
