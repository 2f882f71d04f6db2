"""Why a process ended, or a batch was lost: from exit codes, counters and last words."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from itertools import pairwise

from ctrkit.core.child_records import WorkerExit
from ctrkit.core.progress import WorkerStage
from ctrkit.core.units import format_bytes, signal_name
from ctrkit.supervise.explain.device_errors import device_error
from ctrkit.supervise.explain.scene import Scene, last_error
from ctrkit.supervise.explain.sentences import REFERENCES, Cause
from ctrkit.supervise.explain.stacks import Frame, Thread, parse_dump, parse_traceback, user_frame

_TRACEBACK = re.compile(r"^Traceback \(most recent call last\):$", re.MULTILINE)
_GUARD = re.compile(r"before the\s+current process has finished its bootstrapping phase")
_SHARED_MEMORY = re.compile(
    r"bus error|insufficient shared memory|unable to (open|write to|resize|mmap|allocate) "
    r"(file|shared memory)[^\n]*</?torch_[^\n]*|No space left on device[^\n]*torch_"
    r"|/dev/shm[^\n]*No space left|unable to allocate shared memory",
    re.IGNORECASE,
)
_OPEN_FILES = re.compile(r"Too many open files|\bEMFILE\b|received 0 items of ancdata")
_CUDA_FORK = "Cannot re-initialize CUDA in forked subprocess"
_CANNOT_PICKLE = re.compile(
    r"PicklingError|Can't pickle|Can't get (local object|attribute)|cannot pickle|can't pickle"
)
_LAUNCH = re.compile(r"multiprocessing/(popen_spawn_posix|popen_forkserver|spawn)\.py")
_SPAWNED = re.compile(
    r"multiprocessing/(spawn|forkserver)\.py\", line \d+, in (_?main|prepare|_fixup)"
)
_FEEDER = re.compile(r"multiprocessing/queues\.py\", line \d+, in _feed")
_IMPORT = re.compile(r"^(ImportError|ModuleNotFoundError): .*$", re.MULTILINE)
_DEVICE_MEMORY = re.compile(
    # words of the allocator, of the driver, and of libraries that allocate besides torch
    r"((CUDA|MPS backend|HIP|XPU) out of memory|(CUDA|HIP) (driver )?error: out of memory"
    r"|(CU|HIP|ROC)(BLAS|DNN|SPARSE|SOLVER)\w*_STATUS_ALLOC_FAILED)[^\n]*",
    re.IGNORECASE,
)
_HOST_MEMORY = re.compile(
    r"\bMemoryError\b|[Cc]annot allocate memory|can't allocate memory|Unable to allocate"
)
_KILLED = re.compile(r"DataLoader worker \(pid (\d+)\) is killed by signal: ([^.\n]+)")
_EXITED = re.compile(r"DataLoader worker \(pid\(s\) ([\d, ]+)\) exited unexpectedly")
_RAISED = re.compile(r"Caught (\w+) in DataLoader worker process (\d+)\.")
_FATAL = re.compile(r"Fatal Python error: (.+)")
_OUR_ERROR = re.compile(r"ctrkit\.[\w.]+: ")
_SOCKET_PATH = re.compile(r"AF_UNIX path (too long|length cannot exceed)[^\n]*")
_LESS = "make the batch or the prefetch smaller, or use fewer workers"


def missing_guard(scene: Scene) -> Cause | None:
    """The user's module starts processes as soon as a spawned worker imports it."""
    if not _GUARD.search(scene.words):
        return None
    frame = user_frame(_around(scene.words, _GUARD))
    return _cause("missing __main__ guard", "a worker that starts imports the user's module anew, "
                  "and that starts workers at once: there is no `__main__` guard", frame,
                  "put what runs the training under `if __name__ == \"__main__\":`",
                  "guard")  # fmt: skip


def shared_memory(scene: Scene) -> Cause | None:
    """/dev/shm, or a container's part of it, is full."""
    match = _SHARED_MEMORY.search(scene.words)
    dead = next((one for one in _dead(scene) if one.exit_code == -signal.SIGBUS), None)
    if (match is None and dead is None) or _near_open_files(scene, match):
        return None
    said = f": {_line_of(scene.words, match)}" if match else ""
    who = _name(scene, dead) if dead else _raiser(scene)
    sentence = f"{who or 'a worker'} found no room in shared memory for a batch{said}"
    return _cause("shared memory is full", sentence, _frame_at(scene, _SHARED_MEMORY),
                  "enlarge /dev/shm (docker: `--shm-size`), make prefetch x workers x batch "
                  "smaller, or use a loader without processes", "shared memory",
                  guilty=who, pid=dead.pid if dead else None)  # fmt: skip


def _near_open_files(scene: Scene, match: re.Match[str] | None) -> bool:
    """Whether a shared memory object could not be opened because descriptors ran out."""
    return match is not None and bool(_OPEN_FILES.search(_line_of(scene.words, match)))


def open_files(scene: Scene) -> Cause | None:
    """No file descriptors are left."""
    match = _OPEN_FILES.search(scene.words)
    if not match:
        return None
    limit = scene.limits.get("RLIMIT_NOFILE")
    of = f" (the limit is {limit})" if limit else ""
    who = _raiser(scene)
    return _cause("too many open files", f"{_in(who)}no file descriptors are left{of}: "
                  f"{_line_of(scene.words, match)}", _frame_at(scene, _OPEN_FILES),
                  "raise `ulimit -n`, keep fewer batches or files open, or call "
                  "`torch.multiprocessing.set_sharing_strategy('file_system')`",
                  "open files", guilty=who)  # fmt: skip


def socket_path(scene: Scene) -> Cause | None:
    """The temporary folder's name is too long for a socket below it."""
    match = _SOCKET_PATH.search(scene.words)
    if not match:
        return None
    return _cause("socket's path too long", "the path of a socket below the temporary folder has "
                  f"more than the hundred characters that it may have: {match[0]}", None,
                  "set TMPDIR to a folder with a short name, such as /tmp", "socket path",
                  guilty=_raiser(scene))  # fmt: skip


def cuda_over_fork(scene: Scene) -> Cause | None:
    """A forked worker uses CUDA."""
    if _CUDA_FORK not in scene.words:
        return None
    frame = _frame_at(scene, re.compile(_CUDA_FORK))
    return _cause("CUDA over fork", "a forked worker uses CUDA, which the main process used before",
                  frame, "start the workers with spawn, or keep the device out of the data set",
                  "CUDA over fork")  # fmt: skip


def not_picklable(scene: Scene) -> Cause | None:
    """The data set, or a function of the loader, cannot be pickled for a worker."""
    for text in _tracebacks(scene.words):
        if _CANNOT_PICKLE.search(text) and _LAUNCH.search(text):
            method = scene.start_method or "spawn"
            return _cause("not picklable", f"{method} workers receive the data set pickled, and "
                          f"that fails: {last_error(text)}", user_frame(parse_traceback(text)),
                          "define it at the top of a module instead of a lambda, a local or "
                          "`__main__` object, and open files and locks in the worker",
                          "pickling")  # fmt: skip
    return None


def import_fails(scene: Scene) -> Cause | None:
    """A spawned worker cannot import a module that the main process imported."""
    for text in _tracebacks(scene.words):
        found = _IMPORT.search(text)
        if found and _SPAWNED.search(text):
            dead = next(iter(_dead(scene)), None)
            name = _name(scene, dead) if dead else "a worker"
            return _cause("import error in a worker",
                          f"{name} cannot import what it needs to start: {found[0]}",
                          user_frame(parse_traceback(text)), "make the module importable from a "
                          "fresh process (PYTHONPATH, working folder)", "guard", guilty=name,
                          pid=dead.pid if dead else None)  # fmt: skip
    return None


def memory(scene: Scene) -> Cause | None:
    """Out of memory, if a counter, a limit or the allocator's own words prove it."""
    if scene.oom_kills > 0:
        dead = next((one for one in _dead(scene) if one.exit_code == -signal.SIGKILL), None)
        who = _name(scene, dead) if dead else "a process of the family"
        return _cause("out of memory", f"the kernel killed {who} for memory (the control group "
                      "counted it in oom_kill)", None, _LESS, "", guilty=who if dead else None,
                      pid=dead.pid if dead else None)  # fmt: skip
    if match := _DEVICE_MEMORY.search(scene.words):
        return _cause("out of memory", f"the device has no memory left: {match[0]}",
                      _frame_at(scene, _DEVICE_MEMORY), "make the batch smaller", "")  # fmt: skip
    if match := _HOST_MEMORY.search(scene.words):
        limit = scene.limits.get("RLIMIT_AS") or scene.limits.get("RLIMIT_DATA")
        under = f" under a limit of {format_bytes(limit)} (ulimit)" if limit else ""
        raiser = _raiser(scene)
        return _cause("out of memory", f"{_in(raiser)}no memory could be had{under}: "
                      f"{_line_of(scene.words, match)}", _frame_at(scene, _HOST_MEMORY),
                      _LESS, "", guilty=raiser)  # fmt: skip
    return None


def death_of_worker(scene: Scene) -> Cause | None:
    """A worker was killed or ended itself."""
    # torch ends the others with SIGTERM or lets them return
    dead = min(_dead(scene), key=lambda one: one.exit_code == -signal.SIGTERM, default=None)
    if dead is None and scene.verdict == "worker-died":
        dead = next(iter(scene.dead), None)  # a worker whose exit code said that all was well
    if dead is None:
        return _unread_death(scene)
    who, code = _name(scene, dead), dead.exit_code
    frame = _frame_of_fatal(scene.crashes.get(dead.pid, scene.stderr))
    when = _when(scene, dead.pid)
    if code >= 0:
        return _cause("worker ended itself", f"{who} ended with exit code {code}{when}", frame,
                      "see what calls `exit` there, and the end of its output in stderr.txt", "",
                      guilty=who, pid=dead.pid)  # fmt: skip
    cause, fix = "", "see who sends that signal"
    if -code == signal.SIGKILL:
        cause = " (cause unknown)"
        fix = "see the system's log: the kernel's memory killer, or somebody's `kill -9`"
    elif -code in (signal.SIGSEGV, signal.SIGABRT, signal.SIGILL, signal.SIGFPE):
        fix = "see the C call at that line"
        if frame is None:
            fix = "run that data set without workers under `python -X faulthandler` to see its line"
    return _cause("worker killed", f"{who} was killed by {signal_name(-code)}{cause}{when}", frame,
                  fix, "worker killed", guilty=who, pid=dead.pid)  # fmt: skip


def _unread_death(scene: Scene) -> Cause | None:
    """Torch noticed that a worker was gone, but its exit code is unknown."""
    match = _EXITED.search(scene.words)
    if match is None:
        return None
    pid = int(match[1].split(",")[0])
    who = _name(scene, WorkerExit(pid=pid, worker=None, exit_code=1))
    return _cause("worker ended itself", f"{who} ended unexpectedly{_when(scene, pid)}", None,
                  "read the end of its output in stderr.txt", "", guilty=who, pid=pid)  # fmt: skip


def _when(scene: Scene, pid: int) -> str:
    """What the worker was doing, by its own progress file."""
    progress = next((p.progress for p in scene.processes if p.pid == pid), None)
    if progress is None or progress.stage is WorkerStage.IDLE:
        return ""
    if progress.stage is WorkerStage.STARTING:
        return " while it started"
    return f" while it made its batch {progress.batches + 1}"


def _dead(scene: Scene) -> list[WorkerExit]:
    """Workers that failed, by their exit codes, or else by torch's message."""
    return [one for one in scene.dead if one.exit_code != 0] or _named_dead(scene.words)


def _named_dead(words: str) -> list[WorkerExit]:
    """Dead workers named in torch's message, if nothing read their exit codes."""
    found = []
    for pid, name in _KILLED.findall(words):
        number = next((s for s in signal.Signals if signal.strsignal(s) == name.strip()), None)
        if number is not None:
            found.append(WorkerExit(pid=int(pid), worker=None, exit_code=-number))
    return found


def worker_raised(scene: Scene) -> Cause | None:
    """The data set raised an exception in a worker; torch raises it again in the main process."""
    match = _RAISED.search(scene.words)
    if not match:
        return None
    original = scene.words[match.end() :]
    return _cause(f"{match[1]} in a worker", f"worker {match[2]} raised: "
                  f"{last_error(original) or match[1]}", user_frame(parse_traceback(original)),
                  "the error is in this line of your code", "",
                  guilty=f"worker {match[2]}")  # fmt: skip


def fatal_error(scene: Scene) -> Cause | None:
    """The main process died in C; Python's fault handler kept its stack."""
    match = _FATAL.search(scene.stderr)
    if not match:
        return None
    return _cause("fatal error", f"the main process died: {match[1].strip()}",
                  _frame_of_fatal(scene.stderr), "see the C call at that line", "",
                  guilty="the main process", pid=scene.root_pid)  # fmt: skip


def main_raised(scene: Scene) -> Cause | None:
    """Any other exception that ended the child."""
    said = last_error(scene.error)
    if not said:
        return None
    frame = user_frame(parse_traceback(scene.error))
    if match := _OUR_ERROR.match(said):  # ctrkit's own message says everything
        return _cause("bad input", said[match.end() :], frame, "", "", guilty=scene.main_name,
                      pid=scene.root_pid)  # fmt: skip
    return _cause(said.partition(":")[0], f"{scene.main_name} raised: {said}", frame, "", "",
                  guilty=scene.main_name, pid=scene.root_pid)  # fmt: skip


WORDS: tuple[Callable[[Scene], Cause | None], ...] = (
    missing_guard, cuda_over_fork, open_files, socket_path, shared_memory, not_picklable,
    import_fails, memory, device_error,
)  # fmt: skip
DEATHS = (*WORDS, worker_raised, death_of_worker, fatal_error, main_raised)


def dropped_batch(scene: Scene) -> str | None:
    """The error with which a worker's queue dropped a batch; the queue only prints it."""
    texts = [text for text in _tracebacks(scene.stderr) if _FEEDER.search(text)]
    return last_error(texts[-1]) if texts else None


def fix_of_dropped(said: str) -> tuple[str, str]:
    """Advice on an error with which a batch could not be sent, and a reference."""
    if _CANNOT_PICKLE.search(said) or said.startswith("TypeError"):
        return ("return only what can be pickled, best tensors and plain values, from the data set "
                "and `collate_fn`", "pickling")  # fmt: skip
    if "requires_grad" in said:
        return "detach the tensors of a batch, `tensor.detach()`, in the data set", "pickling"
    if said:
        return "the batch was made, and sending it failed: mend what that error names", ""
    return "read the end of the workers' output in stderr.txt", ""


def explain_words(scene: Scene) -> Cause | None:
    """The cause that the last words prove alone; for a hang that may have followed an error."""
    return next((cause for pattern in WORDS if (cause := pattern(scene))), None)


def _cause(
    name: str, sentence: str, frame: Frame | None, fix: str, about: str, *,
    guilty: str | None = None, pid: int | None = None,
) -> Cause:  # fmt: skip
    where = f" (at {frame})" if frame else ""
    return Cause(
        name=name, sentence=f"{sentence}{where}", guilty_pid=pid, guilty=guilty,
        place=str(frame) if frame else None, fix=fix, references=REFERENCES.get(about, ()),
    )  # fmt: skip


def _name(scene: Scene, dead: WorkerExit) -> str:
    progress = next((p.progress for p in scene.processes if p.pid == dead.pid), None)
    number = dead.worker if progress is None else progress.worker
    return f"{f'a {dead.kind}' if number is None else f'{dead.kind} {number}'} (pid {dead.pid})"


def _raiser(scene: Scene) -> str | None:
    """The worker whose exception the main process raised again; None if there is none."""
    match = _RAISED.search(scene.words)
    return f"worker {match[2]}" if match else None


def _in(who: str | None) -> str:
    return f"in {who} " if who else ""


def _tracebacks(text: str) -> list[str]:
    starts = [match.start() for match in _TRACEBACK.finditer(text)]
    return [text[start:end] for start, end in pairwise([*starts, len(text)])]


def _around(text: str, pattern: re.Pattern[str]) -> Thread:
    """The frames of the traceback that contains the pattern, innermost first."""
    found = next((one for one in _tracebacks(text) if pattern.search(one)), "")
    return parse_traceback(found)


def _frame_at(scene: Scene, pattern: re.Pattern[str]) -> Frame | None:
    return user_frame(_around(scene.words, pattern))


def _frame_of_fatal(stderr: str) -> Frame | None:
    """The user's frame in the last stack that Python's fault handler wrote."""
    match = _FATAL.search(stderr)
    # the other threads come first
    died = stderr.find("\nCurrent thread 0x", match.start()) if match else -1
    threads = parse_dump(stderr[max(died, match.start()) :]) if match else ()
    return user_frame(threads[0]) or threads[0][0] if threads else None


def _line_of(text: str, match: re.Match[str] | None) -> str:
    if match is None:
        return ""
    start = text.rfind("\n", 0, match.start()) + 1
    return text[start:].split("\n", 1)[0].strip()[:300]
