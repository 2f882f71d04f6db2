"""Judges how a child ended: a verdict from its exit code, its result file and its last words."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from ctrkit.core import stops
from ctrkit.core.child_records import ChildError, WorkerExit
from ctrkit.core.progress import Progress, Stage
from ctrkit.core.units import signal_name
from ctrkit.supervise.last_words import last_words
from ctrkit.supervise.watchdog import Verdict

_WORKER_DIED = re.compile(
    r"DataLoader worker \(pid(\(s\))?.*\) (exited unexpectedly|is killed by signal)", re.DOTALL
)
# A worker that dies while it sends a batch breaks the connection under `_get_data`. One that dies
# during its start breaks the pipe that carries the data set. An error of the worker's own code
# arrives differently. torch's SIGCHLD handler can raise even while a traceback is printed; then
# only "object type name: ... lost sys.stderr" is left.
_BROKEN = (
    r"(ConnectionResetError|ConnectionRefusedError|BrokenPipeError|EOFError|FileNotFoundError)"
)
_HANDOVER_BROKE = re.compile(
    rf"dataloader\.py\", line \d+, in (_try)?_get_data.*^{_BROKEN}"
    rf"|popen_\w+\.py\", line \d+, in _launch.*^{_BROKEN}"
    rf"|object type name: {_BROKEN}\n.*lost sys\.stderr",
    re.DOTALL | re.MULTILINE,
)
_OUT_OF_MEMORY = re.compile(
    r"out of memory|OutOfMemoryError|\bMemoryError\b|[Cc]annot allocate memory"
    r"|can't allocate memory|Unable to allocate|_STATUS_ALLOC_FAILED",
)
_SETUP_STAGES = (Stage.IMPORT, Stage.DATA, Stage.MODEL)
#: Stages of a script that only mean it was not within a step.
_BETWEEN = (Stage.EPOCH_BOUNDARY, Stage.SHUTDOWN, Stage.DONE)
_NO_INPUT = "EOFError: EOF when reading a line"


@dataclass(frozen=True, kw_only=True)
class Result:
    """The keys that all kinds of result files share; others are ignored."""

    complete: bool = True
    error: ChildError | None = None


@dataclass(frozen=True, kw_only=True)
class End:
    """Why watching stopped: an exit code, a watchdog's verdict, the deadline or the user."""

    exit_code: int | None = None
    hang: Verdict | None = None
    cut: bool = False
    interrupted: bool = False
    cut_by_grace: bool = False
    silent_s: float = 0.0


def read_result(folder: Path, completion: str = "measurement.json") -> Result | None:
    """The child's result so far; None if it wrote none. An error is always in the measurement.

    Args:
        folder: the child's folder.
        completion: name of its result file.
    """
    for name in dict.fromkeys((completion, "measurement.json")):
        try:
            result = msgspec.json.decode((folder / name).read_bytes(), type=Result)
        except (OSError, msgspec.DecodeError):
            continue
        if name == completion or result.error is not None:
            return result
    return None


def classify_error(message: str, details: str = "", otherwise: str = "crashed") -> str:
    """The verdict that an error proves, else `otherwise`.

    Args:
        message: the exception in one line.
        details: its traceback, or the end of stderr. A worker's death shows as torch's own error or
            as a broken connection, whichever comes first.
        otherwise: the verdict for any other error.
    """
    if _WORKER_DIED.search(message) or _HANDOVER_BROKE.search(details):
        return "worker-died"
    if _OUT_OF_MEMORY.search(message):
        return "out-of-memory"
    return otherwise


def judge_script_end(end: End, stage: Stage, stderr: str, kills: int, done: str = "") -> Verdict:
    """Judge the end of a script, whose only result is its exit code.

    A script that was asked to end chooses its exit code itself.
    """
    if end.hang is not None:
        return end.hang
    if end.exit_code is None or end.interrupted:
        return Verdict("skipped", "interrupted")
    if end.exit_code == 0:
        return Verdict("ok", "")
    return judge_exit(end.exit_code, None, stage, stderr, kills, done=done)


def judge_end(
    end: End,
    result: Result | None,
    stage: Stage,
    stderr: str,
    kills: int,
    *,
    is_run: bool,
    done: str = "",
) -> tuple[Verdict, End]:
    """Judge the end of watching, together with what the child wrote.

    A real run that was asked to stop can still fail while it saves; that is reported. A run that
    got the stop signal directly, and not through this process, counts as interrupted, too.

    Args:
        end: why watching stopped.
        result: the child's result.
        stage: its last stage.
        stderr: the end of its stderr.
        kills: how many of its processes the kernel killed for memory.
        is_run: whether it is a real run; a trial has nothing to save.
        done: how far a script got, in words; empty for anything else.
    """
    code = end.exit_code
    if end.hang is not None:
        return judge_hang(end.hang, result), end
    if code is None:
        why = "interrupted" if end.interrupted else "the budget ended first"
        return Verdict("skipped", why), end
    if end.interrupted and (not is_run or was_stopped(code, result, stderr)):
        return Verdict("skipped", "interrupted"), end
    if is_run and code == stops.EXIT_CODE:
        return Verdict("skipped", "interrupted"), replace(end, interrupted=True)
    verdict = judge_exit(code, result, stage, stderr, kills, done=done)
    if not is_run and _NO_INPUT in verdict.reason:
        verdict = replace(verdict, reason=f"{verdict.reason}; a trial has no input: its stdin is "
                                          "empty, so have the script ask for none")  # fmt: skip
    return verdict, end


def judge_exit(
    exit_code: int,
    result: Result | None,
    stage: Stage,
    stderr: str = "",
    kills: int = 0,
    *,
    done: str = "",
) -> Verdict:
    """The verdict on a child that ended by itself.

    Args:
        exit_code: as `subprocess` gives it, negative for a signal.
        result: the child's result.
        stage: its last stage.
        stderr: the end of its stderr.
        kills: how many processes of its control groups the kernel killed for memory.
        done: how far a script got, in words.
    """
    if result is not None and result.error is not None:
        return _judge_error(result.error, kills)
    complete = result is not None and result.complete
    if exit_code == 0 and complete:
        return Verdict("ok", "")
    where = "after its result was complete" if complete else f"in stage '{stage.label}'"
    if done:
        where = done if complete or stage in _BETWEEN else f"{where}, {done}"
    if exit_code < 0:
        verdict = "out-of-memory" if _was_for_memory(exit_code, kills) else "crashed"
        return Verdict(verdict, f"the main process {_ended_words(exit_code, kills)} ({where})")
    if exit_code == 0:
        said = last_words(stderr)
        by = f": {said}" if said.startswith("os._exit(") else ""
        return Verdict("crashed", f"it ended without a complete result ({where}){by}")
    otherwise = "setup-failed" if stage in _SETUP_STAGES and not complete else "crashed"
    said = last_words(stderr)
    verdict = classify_error(said, stderr, otherwise=otherwise)
    said = _in_words(verdict, said) or "it printed no error"
    return Verdict(verdict, f"it ended with exit code {exit_code} {where}: {said}")


def batches_done(progress: Progress | None) -> str:
    """`after 31 of 250 batches of epoch 1`; empty before the first batch."""
    if progress is None or progress.step <= 0:
        return ""
    of = f" of {progress.steps}" if progress.steps > progress.step else ""
    batches = "batch" if (progress.steps if of else progress.step) == 1 else "batches"
    return f"after {progress.step}{of} {batches} of epoch {progress.epoch}"


def was_stopped(exit_code: int, result: Result | None, stderr: str = "") -> bool:
    """Whether a run that was asked to stop ended for that reason, and not by an error.

    Args:
        exit_code: as `subprocess` gives it.
        result: the child's result.
        stderr: the end of its stderr: the workload's code may handle Ctrl-C itself.
    """
    if result is not None and result.error is not None:
        return False
    if exit_code in (0, stops.EXIT_CODE) or -exit_code in stops.SIGNALS:
        return True
    return exit_code > 0 and last_words(stderr).startswith("KeyboardInterrupt")


def _judge_error(error: ChildError, kills: int) -> Verdict:
    """The verdict on an error that the child wrote, with its workers' exit codes."""
    # bad input that only the child could notice: for a trial, its set-up failed
    verdict = "setup-failed" if error.verdict == "usage" else error.verdict
    if verdict in ("crashed", "setup-failed"):
        verdict = classify_error(error.message, error.traceback, otherwise=verdict)
    where = f"(in stage '{error.stage}')"
    dead = worker_that_died(error.dead_workers, told=verdict == "worker-died")
    if dead is None or verdict not in ("worker-died", "crashed", "setup-failed"):
        return Verdict(verdict, f"{_in_words(verdict, error.message)} {where}")
    verdict = "out-of-memory" if _was_for_memory(dead.exit_code, kills) else "worker-died"
    who = f"a {dead.kind}" if dead.worker is None else f"{dead.kind} {dead.worker}"
    how = _ended_words(dead.exit_code, kills)
    return Verdict(verdict, f"{who} (pid {dead.pid}) {how} {where}; then: {error.message}")


def worker_that_died(dead: Sequence[WorkerExit], *, told: bool) -> WorkerExit | None:
    """The worker whose death ended the loop; None if no death did.

    If the error itself does not mention a death (`told`), only a signal that torch does not send
    counts: a failing loop ends its workers, and some of those then fail, too.
    """
    signalled = [one for one in dead if one.exit_code < 0 and -one.exit_code != signal.SIGTERM]
    if signalled or not told:
        return signalled[0] if signalled else None
    return next((one for one in dead if one.exit_code != 0), dead[0] if dead else None)


def _was_for_memory(exit_code: int, kills: int) -> bool:
    return exit_code == -signal.SIGKILL and kills > 0


def _ended_words(exit_code: int, kills: int) -> str:
    if exit_code >= 0:
        return f"ended with exit code {exit_code}"
    name = signal_name(-exit_code)
    if _was_for_memory(exit_code, kills):
        return (
            f"was killed by {name} for memory: the kernel's oom_kill counter of its control "
            f"group rose by {kills}"
        )
    return f"was killed by {name}" + (", cause unknown" if name == "SIGKILL" else "")


def _in_words(verdict: str, said: str) -> str:
    """The given message, or for a dead worker without one, what its death means."""
    if verdict == "worker-died" and not _WORKER_DIED.search(said):
        return f"a DataLoader worker died while it started or handed over a batch ({said})"
    return said


def judge_hang(hang: Verdict, result: Result | None) -> Verdict:
    """The verdict on a child that had to be ended; a complete result counts."""
    if result is None or (not result.complete and result.error is None):
        return hang
    if result.error is not None:
        error = judge_exit(1, result, Stage.SHUTDOWN)
        return Verdict(error.verdict, f"{error.reason}; then its process did not end")
    return Verdict("shutdown-hang", f"the result is complete, but its process does not end: "
                                    f"{hang.reason}")  # fmt: skip
