"""Why a living family makes no progress: one small function per known pattern."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from ctrkit.core.progress import WorkerStage
from ctrkit.supervise.explain.deaths import (
    death_of_worker,
    dropped_batch,
    explain_words,
    fix_of_dropped,
)
from ctrkit.supervise.explain.lock_waits import NO_FORK, file_lock, is_forked, lock, takes_lock
from ctrkit.supervise.explain.process_waits import queue_or_signal
from ctrkit.supervise.explain.scene import (
    Process,
    Role,
    Scene,
    last_error,
    place_of,
    waits_for_loader,
)
from ctrkit.supervise.explain.sentences import (
    REFERENCES,
    Cause,
    at,
    blame,
    is_worker,
    kernel_wait,
)
from ctrkit.supervise.explain.stacks import (
    Thread,
    find_frame,
    is_users,
    own_part,
    user_frame,
)

Pattern = Callable[[Scene], Cause | None]
StuckPattern = Callable[[Scene, Process], Cause | None]

_TORCH_WORKER = "torch/utils/data/_utils/worker.py"
_TORCH_LOADER = "torch/utils/data/dataloader.py"
_LAUNCHERS = ("multiprocessing/popen_spawn_posix.py", "multiprocessing/popen_forkserver.py")
_OPENMP = re.compile(r"lib(gomp|iomp5?|omp)\b")
_REGEX = re.compile(r"\bre\.|\bregex\.|\.(full)?match\(|\.search\(|\.sub\(|\.find(all|iter)\(")
_TENSOR = re.compile(r"\btorch\.|\bnp\.|\bnumpy\.|\bcv2\.|\.(sum|mean|matmul|mm|bmm|to|cpu)\(|@")
_C_CALL = re.compile(r"ctypes|CDLL|PyDLL|pythonapi|\blib\w*\.", re.IGNORECASE)
#: Causes that only occur in a program whose work is done, while its interpreter ends.
AT_THE_END = ("non-daemon thread",)
_LOOK_THERE = "look at that line: give what it waits for a timeout, or keep it out of the loader"


def stopped(scene: Scene) -> Cause | None:
    """A process was stopped (SIGSTOP, a debugger, Ctrl-Z)."""
    for process in scene.processes:
        if process.is_stopped:
            return blame(scene, process, "stopped process", "is stopped, and nobody continues it",
                         fix=f"find out who stopped it; `kill -CONT {process.pid}` continues it",
                         )  # fmt: skip
    return None


def spawn_pipe(scene: Scene) -> Cause | None:
    """The main process writes the pickled data set to a worker that does not read it."""
    stack = scene.main.stack
    if not stack or not any(stack[0].is_in(file, "_launch") for file in _LAUNCHERS):
        return None
    starting = [p for p in scene.living_workers() if not p.in_loop]
    if starting:
        return blame(scene, starting[-1], "worker start-up",
                     "has not finished its start, so the main process cannot hand it the data set",
                     fix="see what its imports wait for", about="spawn pipe")  # fmt: skip
    words = explain_words(scene)
    dead = next(iter(scene.dead), None)
    return Cause(
        name=words.name if words else "worker died while it started",
        sentence="the main process writes the pickled data set to a worker that died while it "
        "started, and blocks for ever since the data set is larger than a pipe holds; "
        f"{words.sentence if words else _died_how(scene)}",
        guilty_pid=dead.pid if dead else None,
        guilty=f"a worker (pid {dead.pid})" if dead else "a worker",
        place=words.place if words else None,
        waits_for=kernel_wait(scene.main) or "a write to a pipe",
        fix=words.fix if words else "read the end of the worker's output in stderr.txt",
        references=(*REFERENCES["spawn pipe"], *(words.references if words else ())),
    )


def _died_how(scene: Scene) -> str:
    if said := last_error(scene.stderr):
        return f"it said: {said}"
    codes = ", ".join(str(one.exit_code) for one in scene.dead)
    return f"it ended with exit code {codes} and said nothing" if codes else "it said nothing"


def joins_threads(scene: Scene) -> Cause | None:
    """The interpreter is ending, and waits for threads that are not daemons."""
    stack = scene.main.stack
    if not (
        find_frame(stack, "/threading.py", "_shutdown")
        or find_frame(stack, "concurrent/futures/thread.py", "_python_exit")
    ):
        return None
    threads = [(thread, user_frame(thread)) for thread in scene.main.threads[:-1]]
    found = next((frame for _, frame in threads if frame), None)
    if found is None:  # none is in user code, so take the first that is not a library's helper
        found = next((t[0] for t, _ in threads if not _is_daemon(t)), None)
    cause = blame(scene, scene.main, "non-daemon thread", "does not end, and the interpreter "
                  "waits for it in `threading._shutdown`", about="threads", place=found,
                  fix="make it a daemon thread, or tell it to end before the program does",
                  )  # fmt: skip
    return replace(cause, sentence=cause.sentence.replace(
        "the main process", "a thread of the main process that is not a daemon", 1))  # fmt: skip


def _is_daemon(thread: Thread) -> bool:
    return bool(
        find_frame(thread, "multiprocessing/queues.py", "_feed")
        or find_frame(thread, "torch/utils/data/_utils/pin_memory.py")
        or find_frame(thread, "multiprocessing/resource_sharer.py")
    )


def joins_processes(scene: Scene) -> Cause | None:
    """The main process ends its workers or itself, and waits for a process that does not end."""
    stack = scene.main.stack
    ending = find_frame(stack, "multiprocessing/util.py", "_exit_function")
    winding_up = find_frame(stack, _TORCH_LOADER, "_shutdown_workers", "__del__")
    if not (ending or winding_up):
        return None
    if find_frame(stack, "multiprocessing/queues.py", "_finalize_join"):
        return blame(scene, scene.main, "queue not emptied", "waits for a queue's feeder thread, "
                     "which cannot write because nobody reads the queue",
                     fix="empty the queue or call `cancel_join_thread` before the end")  # fmt: skip
    others = (Role.WORKER, Role.OTHER)
    living = [p for p in scene.processes if scene.role(p) in others and not p.is_dead]
    living.sort(key=lambda p: (p.is_idle, not p.ignores_sigterm))
    if not living:
        return None
    deaf = " and does not obey SIGTERM" if living[0].ignores_sigterm else ""
    return blame(scene, living[0], "process does not end",
                 f"does not end{deaf}: the main process waits for it",
                 fix="let it end by itself, and leave SIGTERM to its default",
                 about="worker shutdown")  # fmt: skip


def handshake(scene: Scene) -> Cause | None:
    """The main process fetches a batch's file descriptor from a worker that does not answer."""
    if not any(_in_handshake(own_part(thread)) for thread in scene.main.threads):
        return None
    worker = worker_waited_for(scene)
    if worker is None:
        dead = death_of_worker(scene)
        return dead or blame(scene, scene.main, "lost handshake", "waits for the file descriptor "
                             "of a batch, and no worker answers", about="handshake")  # fmt: skip
    if worker.is_burning and (cause := spins(scene, worker)):
        return cause
    return _holds_gil(scene, worker, "so that the main process waits for ever for the file "
                      "descriptor of a batch that is ready")  # fmt: skip


def _in_handshake(thread: Thread) -> bool:
    return bool(
        find_frame(thread, "torch/multiprocessing/reductions.py", "rebuild_storage_fd")
        or find_frame(thread, "multiprocessing/resource_sharer.py", "detach", "get_connection")
    )


def worker_waited_for(scene: Scene) -> Process | None:
    """The worker that the main process waits for: a busy one, if possible the next in turn."""
    busy = [worker for worker in scene.living_workers() if not worker.is_idle]
    if not busy:
        return None

    def suspicion(worker: Process) -> tuple[bool, bool, float]:
        progress = worker.progress
        in_turn = progress is not None and progress.worker == scene.awaited_worker()
        in_user_code = user_frame(worker.stack) is not None
        return (not in_turn, not in_user_code, progress.written_s if progress else 0.0)

    return min(busy, key=suspicion)


def waits_for_worker(scene: Scene) -> Cause | None:
    """The main process waits for a batch, and the worker that should make it is stuck."""
    if not waits_for_loader(scene.main):
        return None
    worker = worker_waited_for(scene)
    if worker is None:
        return death_of_worker(scene) or _lost_batch(scene)
    return stuck(scene, worker)


def _lost_batch(scene: Scene) -> Cause | None:
    """All workers are idle: a batch was made but lost on its way."""
    workers = scene.living_workers()
    if not workers:
        return None
    number = scene.awaited_worker()
    worker = next((p for p in workers if p.progress and p.progress.worker == number), None)
    who = scene.name(worker) if worker else "a worker"
    words, dropped = explain_words(scene), dropped_batch(scene)
    if words and not dropped:
        what = f"a batch was lost between {who} and the main process: {words.sentence}"
    elif words or dropped:
        said = words.sentence if words else dropped
        what = f"{who} made a batch that cannot be sent and its queue dropped it: {said}"
    else:
        what = "a batch was lost between the workers and the main process, and nothing says why"
    waiting = at(scene, place_of(scene.main)).rstrip()
    fix, about = fix_of_dropped(dropped or "")
    return Cause(
        name=words.name if words else "lost batch",
        sentence=f"{what}; all workers are idle, and the main process {waiting} waits for ever",
        guilty_pid=worker.pid if worker else None,
        guilty=who,
        waits_for="a batch that never comes",
        fix=words.fix if words else fix,
        references=words.references if words else REFERENCES.get(about, ()),
    )


def main_is_stuck(scene: Scene) -> Cause | None:
    """The main process waits neither for a worker nor for a batch, so it is stuck itself."""
    if not scene.main.stack:
        return None
    busy = [p for p in scene.processes if scene.role(p) is Role.OTHER and user_frame(p.stack)]
    if busy and user_frame(scene.main.stack) is None:
        return stuck(scene, busy[0])
    return stuck(scene, scene.main)


def stuck(scene: Scene, process: Process) -> Cause:
    """The cause for a process that is stuck."""
    for pattern in STUCK:
        if cause := pattern(scene, process):
            return cause
    what = kernel_wait(process)
    return blame(scene, process, "stuck", what or "makes no progress", fix=_LOOK_THERE)


def imports(scene: Scene, process: Process) -> Cause | None:
    """It burns CPU while it imports: that ends by itself, unless an imported file loops."""
    if not process.is_burning or find_frame(process.stack, "importlib._bootstrap>") is None:
        return None
    return blame(scene, process, "import", "still imports modules, and uses the CPU for it",
                 fix="wait: imports can take minutes from a slow disk; if it stays at this line, "
                 "look at what the imported file does")  # fmt: skip


def spins(scene: Scene, process: Process) -> Cause | None:
    """It uses CPU and makes no progress."""
    if not process.is_burning:
        return None
    place = place_of(process)
    in_regex = bool(process.stack) and process.stack[0].is_in("/re/__init__.py")
    if in_regex or _REGEX.search(scene.source(place)):
        return blame(scene, process, "spin", "burns CPU in a regular expression that does not end",
                     fix="rewrite the pattern without nested repetition")  # fmt: skip
    return blame(scene, process, "spin", "burns CPU in a loop that does not end",
                 fix="look at the condition that should end the loop")  # fmt: skip


def init_hangs(scene: Scene, process: Process) -> Cause | None:
    """`worker_init_fn` does not return."""
    stack = process.stack
    for index, frame in enumerate(stack):
        if frame.is_in(_TORCH_WORKER, "_worker_loop"):
            called = next((one for one in reversed(stack[:index]) if is_users(one)), None)
            starts = process.progress is None or process.progress.stage is WorkerStage.STARTING
            library = any("/torch/utils/data/" in one.file for one in stack[:index])
            if called and starts and not library:
                return blame(scene, process, "worker_init_fn", f"hangs in its `worker_init_fn` "
                             f"({called.function}){_tail(process)}",
                             fix="make `worker_init_fn` return")  # fmt: skip
    return None


def starts_up(scene: Scene, process: Process) -> Cause | None:
    """A worker that has not reached torch's loop."""
    if not is_worker(scene, process) or process.in_loop:
        return None
    if process.progress is not None and process.progress.stage is not WorkerStage.STARTING:
        return None
    doing = "imports" if find_frame(process.stack, "importlib._bootstrap>") else "starts up"
    return blame(scene, process, "worker start-up", f"still {doing}{_tail(process)}",
                 fix="see what its imports and its data set's `__setstate__` wait for")  # fmt: skip


def holds_gil(scene: Scene, process: Process) -> Cause | None:
    """A C call holds the GIL, and the other threads of its process wait for it."""
    return (
        _holds_gil(scene, process, "so that its other threads wait") if process.holds_gil else None
    )


def _holds_gil(scene: Scene, process: Process, so: str) -> Cause:
    proved = process.holds_gil or _C_CALL.search(scene.source(place_of(process)))
    what = "is in a C call that holds the GIL" if proved else "is frozen or holds the GIL in C"
    return blame(scene, process, "C call holds the GIL", f"{what}, {so}",
                 fix="release the GIL in that call (ctypes: CDLL, not PyDLL), or run it in a "
                 "process of its own", about="handshake")  # fmt: skip


def openmp(scene: Scene, process: Process) -> Cause | None:
    """A parallel region waits for threads that a fork did not copy."""
    library = process.wait.library if process.wait else None
    inside = library is not None and _OPENMP.search(library) is not None
    forked = is_forked(scene, process)
    maybe = library is None and forked and not takes_lock(scene, process)
    if not inside and not (maybe and _in_tensor_code(scene, process)):
        return None
    if not forked:
        return blame(scene, process, "OpenMP", "waits in OpenMP for threads of its pool",
                     fix="set the number of threads to 1 to see whether that ends it")  # fmt: skip
    sure = "waits" if inside else "most likely waits"
    return blame(scene, process, "OpenMP over fork", f"{sure} in OpenMP for threads that were not "
                 "copied when the worker was forked", about="OpenMP over fork",
                 fix=f"leave `torch.set_num_threads` at 1 in workers, or {NO_FORK}")  # fmt: skip


def mps_over_fork(scene: Scene, process: Process) -> Cause | None:
    """A forked worker uses tensors while the main process uses MPS."""
    if scene.device != "mps" or not is_forked(scene, process):
        return None
    if takes_lock(scene, process) or not _in_tensor_code(scene, process):
        return None
    return blame(scene, process, "MPS over fork", "hangs in a tensor operation: it was forked from "
                 "a process that uses MPS", fix=NO_FORK, about="MPS over fork")  # fmt: skip


def mps_waits(scene: Scene, process: Process) -> Cause | None:
    """The main process waits for the MPS device."""
    frame = find_frame(process.stack, "torch/mps/__init__.py", "synchronize")
    frame = frame or find_frame(process.stack, "torch/mps/event.py")
    if frame is None:
        return None
    return blame(scene, process, "MPS", "waits for the MPS device, which does not answer",
                 fix="update macOS and torch, or run on cpu", about="MPS")  # fmt: skip


STUCK: tuple[StuckPattern, ...] = (
    starts_up, imports, spins, init_hangs, holds_gil, file_lock, queue_or_signal, mps_over_fork,
    mps_waits, openmp, lock,
)  # fmt: skip
HANGS: tuple[Pattern, ...] = (
    stopped, spawn_pipe, joins_threads, joins_processes, handshake, waits_for_worker, main_is_stuck,
)  # fmt: skip


def _tail(process: Process) -> str:
    what = kernel_wait(process)
    return f": it {what}" if what else ""


def _in_tensor_code(scene: Scene, process: Process) -> bool:
    stack = process.stack
    if not stack:
        return False
    own = find_frame(stack, _TORCH_WORKER, "_worker_loop") is None or user_frame(stack) is not None
    in_library = re.search(r"/(torch|numpy|cv2|sklearn|scipy)/", stack[0].file) is not None
    return own and (in_library or bool(_TENSOR.search(scene.source(user_frame(stack)))))
