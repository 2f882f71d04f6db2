"""Whether a recommendation in a file is of what is to be run, and what to say where it is not."""

from __future__ import annotations

import shlex
from pathlib import Path

from ctrkit.core.command_line import shown_script
from ctrkit.core.config import ScriptSpec, WorkloadSpec
from ctrkit.core.environment import machine_fingerprint
from ctrkit.core.errors import UsageError
from ctrkit.core.records import Inspection, Origin, Recommendation
from ctrkit.core.runs import RunFolder


def warning_for_script(
    path: Path, recommendation: Recommendation, script: ScriptSpec, machine: str | None = None
) -> str:
    """One line where the recommendation is not of this script on this machine; else nothing."""
    origin = _origin_of(path, recommendation)
    if origin is None:
        return ""
    probed = origin.workload.script
    if probed is None or not _is_same_script(probed, shown_script(script)):
        return _warning(path, f"is of {_named(origin.workload)}")
    return _warning_of_machine(path, origin, machine)


def warning_for_workload(
    path: Path, recommendation: Recommendation, inspection: Inspection, machine: str | None = None
) -> str:
    """One line where it is not of this workload with these data on this machine; else nothing."""
    origin = _origin_of(path, recommendation)
    if origin is None:
        return ""
    if origin.workload.script is not None:
        return _warning(path, f"is of {_named(origin.workload)}")
    if origin.workload_fingerprint != inspection.workload_fingerprint:
        named = _named(origin.workload)
        return _warning(path, f"is of another workload, or of another version of it ({named})")
    if origin.data_fingerprint != inspection.data_fingerprint:
        where = f" ({origin.workload.data})" if origin.workload.data else ""
        return _warning(path, f"was made with other data{where}")
    return _warning_of_machine(path, origin, machine)


def _warning(path: Path, what: str) -> str:
    return (
        f"warning: {path} {what}: its configuration is used, its projection is not; "
        "ctrkit probe tells what is best here"
    )


def _warning_of_machine(path: Path, origin: Origin, machine: str | None) -> str:
    if origin.machine_fingerprint == (machine or machine_fingerprint()):
        return ""
    return _warning(path, "was made on another machine")


def _origin_of(path: Path, recommendation: Recommendation) -> Origin | None:
    """What it is of: as it says itself, else as the probe's run folder does, where it lies."""
    if recommendation.origin is not None:
        return recommendation.origin
    try:
        run = RunFolder.open(path.parent)
    except UsageError:
        return None
    return run.origin() if run.info.command == "probe" else None


def _is_same_script(probed: ScriptSpec, script: ScriptSpec) -> bool:
    """Whether the commands are alike, and mean the same files where they are run elsewhere."""
    if probed.command != script.command:
        return False
    here, there = Path(script.folder), Path(probed.folder)
    return here == there or all(
        _content(here / word) == _content(there / word) for word in script.command
    )


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes() if path.is_file() else None
    except OSError:
        return None


def _named(workload: WorkloadSpec) -> str:
    if workload.script is not None:
        return f"the script `{shlex.join(workload.script.command)}`"
    return f"the workload {workload.target}"
