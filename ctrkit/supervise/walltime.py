"""When a run must be over: as the user says, or as the batch system of this job says."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

import psutil

from ctrkit.core.errors import UsageError
from ctrkit.core.units import parse_duration_s

_ASK_S = 5.0
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?")
_LATER_DAYS = re.compile(r"(?:(\d+)-)?(\d+):(\d{2}):(\d{2})")
_DAY_S = 86400.0


@dataclass(frozen=True, kw_only=True)
class Deadline:
    """When the run must be over, as Unix time, and who says so."""

    at_unix_s: float
    said_by: str


def read_ends_by(text: str, now_unix_s: float) -> Deadline:
    """Parse `--ends-by`: a duration from now (`6h`), a time of day (`07:30`), or a date and time.

    Raises:
        UsageError: it is none of these, or lies in the past.
    """
    said_by = f"--ends-by {text}"
    if match := _CLOCK.fullmatch(text.strip()):
        hour, minute, second = (int(part or 0) for part in match.groups())
        if hour > 23 or minute > 59 or second > 59:
            raise UsageError(f"{said_by}: there is no such time of day")
        now = datetime.fromtimestamp(now_unix_s)
        then = now.replace(hour=hour, minute=minute, second=second, microsecond=0).timestamp()
        return Deadline(at_unix_s=then if then > now_unix_s else then + _DAY_S, said_by=said_by)
    with suppress(ValueError):
        then = datetime.fromisoformat(text.strip()).timestamp()
        if "-" not in text:
            raise ValueError
        if then <= now_unix_s:
            raise UsageError(f"{said_by}: is in the past")
        return Deadline(at_unix_s=then, said_by=said_by)
    try:
        return Deadline(at_unix_s=now_unix_s + parse_duration_s(text), said_by=said_by)
    except UsageError:
        raise UsageError(
            f"{said_by}: write a duration (6h), a time of day (07:30) or a date and time "
            "(2027-01-31T07:30)"
        ) from None


def end_of_job(
    environment: Mapping[str, str] | None = None,
    ask: Callable[[list[str]], str] | None = None,
    session_began: Callable[[], float | None] | None = None,
) -> Deadline | None:
    """When the batch system will end this process's job; None outside a job.

    Args:
        environment: environment variables; this process's own if None.
        ask: runs a command and returns its output, empty if it fails.
        session_began: returns when the job's script was started, as Unix time.
    """
    environment = os.environ if environment is None else environment
    ask = ask or _ask
    job = environment.get("SLURM_JOB_ID", "")
    if job.isdigit():
        with suppress(KeyError, ValueError):
            at = float(environment["SLURM_JOB_END_TIME"])
            return Deadline(at_unix_s=at, said_by=f"the end of Slurm job {job}")
        at_text = _slurm_end(ask(["scontrol", "show", "job", "-o", job]))
        if at_text is not None:
            return Deadline(at_unix_s=at_text, said_by=f"the end of Slurm job {job}")
    walltime_s = _walltime_s(environment.get("PBS_WALLTIME", ""))
    if walltime_s is not None and "PBS_JOBID" in environment:
        began = (session_began or _session_began)()
        if began is not None:
            name = environment["PBS_JOBID"].split(".")[0][:20]
            return Deadline(at_unix_s=began + walltime_s, said_by=f"the walltime of PBS job {name}")
    return None


def _slurm_end(text: str) -> float | None:
    match = re.search(r"\bEndTime=(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)", text)
    return None if match is None else datetime.fromisoformat(match[1]).timestamp()


def _walltime_s(text: str) -> float | None:
    """Seconds of a plain number or of `days-hours:minutes:seconds`."""
    if text.strip().isdigit():
        return float(text)
    match = _LATER_DAYS.fullmatch(text.strip())
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return days * _DAY_S + hours * 3600.0 + minutes * 60.0 + seconds


def _ask(argv: list[str]) -> str:
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, errors="replace", timeout=_ASK_S,
            stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _session_began() -> float | None:
    """When the oldest visible process of our session was started: the job's script.

    The script leads the session. If it has ended, or a container hides it, this is the oldest of
    our ancestors in the session, which may be younger.
    """
    began: list[float] = []
    with suppress(psutil.Error, OSError):
        session, ourselves = os.getsid(0), psutil.Process()
        began += _began(session) if session else []
        for one in [ourselves, *ourselves.parents()]:
            with suppress(OSError):
                began += _began(one.pid) if os.getsid(one.pid) == session else []
    return min(began, default=None)


def _began(pid: int) -> list[float]:
    try:
        return [float(psutil.Process(pid).create_time())]
    except psutil.Error:
        return []


def time_left_s(deadline: Deadline, now_unix_s: float | None = None) -> float:
    """Seconds until the deadline."""
    return deadline.at_unix_s - (time.time() if now_unix_s is None else now_unix_s)
