"""Checks that a recommendation file is about the workload to be run, and says so if it is not."""

from __future__ import annotations

import shlex
from pathlib import Path

from ctrkit.core.child_records import Inspection
from ctrkit.core.command_line import shown_script
from ctrkit.core.config import ScriptSpec, WorkloadSpec
from ctrkit.core.environment import machine_fingerprint
from ctrkit.core.errors import UsageError
from ctrkit.core.records import Origin, Recommendation
from ctrkit.core.runs import RunFolder
from ctrkit.core.script_sources import edited_since, sources_of
from ctrkit.report.words import plural


def warning_for_script(
    path: Path, recommendation: Recommendation, script: ScriptSpec, machine: str | None = None
) -> str:
    """A warning if the recommendation is not about this script on this machine; else empty."""
    origin = _origin_of(path, recommendation)
    if origin is None:
        return ""
    probed, shown = origin.workload.script, shown_script(script)
    if probed is None or probed.command != shown.command:
        return _warning(path, f"is of {_named(origin.workload)}")
    if probed.folder == shown.folder:
        edited = warning_if_edited(recommendation, script, of=str(path))
        return edited or _warning_of_machine(path, origin, machine)
    if _other_files(recommendation, probed, script):
        return _warning(path, f"is of {_named(origin.workload)} in {probed.folder}")
    return _warning_of_machine(path, origin, machine)


def warning_if_edited(recommendation: Recommendation, script: ScriptSpec, of: str) -> str:
    """A warning if a source file of the script was edited since the probe; else empty.

    `of` names the source of the recommendation.
    """
    answer = recommendation.script
    if answer is None:
        return ""
    edited = edited_since(answer.sources, sources_of(script))
    if not edited:
        return ""
    first, more = edited[0], len(edited) - 1
    files = f"{first} and {plural(more, 'other file')} of it were" if more else f"{first} was"
    return (
        f"warning: {files} edited since the probe ({of}): its configuration is used, "
        "its projection is not; ctrkit probe tells what is best now"
    )


def warning_for_workload(
    path: Path, recommendation: Recommendation, inspection: Inspection, machine: str | None = None
) -> str:
    """A warning if it is not about this workload, data and machine; else empty."""
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
    """What it is about: as it says itself, else as the run folder of its probe says."""
    if recommendation.origin is not None:
        return recommendation.origin
    try:
        run = RunFolder.open(path.parent)
    except UsageError:
        return None
    return run.origin() if run.info.command == "probe" else None


def _other_files(recommendation: Recommendation, probed: ScriptSpec, script: ScriptSpec) -> bool:
    """Whether the same command means other files here than where it was probed."""
    answer = recommendation.script
    if answer is not None and answer.sources:
        return bool(edited_since(answer.sources, sources_of(script)))
    here, there = Path(script.folder), Path(probed.folder)
    return any(_content(here / word) != _content(there / word) for word in script.command)


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes() if path.is_file() else None
    except OSError:
        return None


def _named(workload: WorkloadSpec) -> str:
    if workload.script is not None:
        return f"the script `{shlex.join(workload.script.command)}`"
    return f"the workload {workload.target}"
