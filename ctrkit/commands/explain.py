"""`ctrkit explain PID`: says what a running process is stuck on, and changes nothing in it."""

from __future__ import annotations

import json
import sys
from typing import Any

from ctrkit.commands.options import duration_s
from ctrkit.core.command_line import without_secrets
from ctrkit.core.errors import UsageError
from ctrkit.core.files import finite
from ctrkit.core.units import format_duration
from ctrkit.report.explain_view import explain_view, role_words, waiting_words
from ctrkit.report.live import stderr_console
from ctrkit.report.terminal import print_report
from ctrkit.supervise.explain.outside import Explanation, explain_process
from ctrkit.supervise.explain.scene import Process, place_of


def explain(*, pid: str, wait: str | None, stacks: bool, as_json: bool, quiet: bool) -> None:
    """Print what the process and its tree wait for.

    Raises:
        UsageError: there is no such process, or it may not be examined.
    """
    if not pid.isascii() or not pid.isdigit() or len(pid) > 10:
        raise UsageError(
            f"'{pid[:40]}' is not a process id; write a number as `ps` shows it, such as 12345"
        )
    wait_s = duration_s("--wait", wait)
    if wait_s is not None and not quiet:
        words = f"looking at pid {pid} twice, {format_duration(wait_s)} apart ..."
        stderr_console().print(words, style="dim")
    found = explain_process(int(pid), wait_s, use_stacks=stacks)
    if as_json:
        json.dump(finite(document(found)), sys.stdout, indent=2, allow_nan=False)
        print()
    else:
        print_report([explain_view(found)])


def document(found: Explanation) -> dict[str, Any]:
    """The JSON document of `--json`."""
    cause, movement, missing = found.cause, found.movement, found.missing
    return {
        "pid": found.pid,
        "main_pid": found.family.main_pid,
        "top_pid": found.family.top_pid,
        "ranks": {str(pid): rank for pid, rank in found.family.ranks.items()},
        "note": found.family.note,
        "state": None if movement is None else movement.state.value,
        "because": None if movement is None else movement.because,
        "cause": None
        if cause is None
        else {
            "name": cause.name, "sentence": cause.sentence, "guilty": cause.guilty,
            "guilty_pid": cause.guilty_pid, "place": cause.place, "waits_for": cause.waits_for,
            "fix": cause.fix, "references": list(cause.references),
        },
        "stacks_by": found.read_by or None,
        "missing": None
        if missing is None
        else {"what": missing.what, "commands": list(missing.commands)},
        "processes": [_process(found, one) for one in found.processes],
    }  # fmt: skip


def _process(found: Explanation, process: Process) -> dict[str, Any]:
    place = place_of(process)
    return {
        "pid": process.pid,
        "parent_pid": process.parent_pid,
        "role": role_words(found, process),
        "command": without_secrets(process.command),
        "status": process.status,
        "cores": process.cores,
        "rss_bytes": process.rss_bytes,
        "exit_code": process.exit_code,
        "waits_for": waiting_words(process),
        "stands_at": None if place is None else f"{place.file}:{place.line} in {place.function}",
        "threads": [
            [{"file": f.file, "line": f.line, "function": f.function} for f in thread]
            for thread in process.threads
        ],
    }
