"""Causes from recorded scenes: each file in `dumps/` was taken from a real hang or death.

Paths and pids were made neutral, nothing else. `alter` makes the near misses: the same scene with
the one fact changed that tells the pattern.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ctrkit
from ctrkit.core.child_records import WorkerExit
from ctrkit.core.progress import WorkerProgress, WorkerStage
from ctrkit.supervise.explain.causes import Cause, explain
from ctrkit.supervise.explain.lock_origins import LockOrigin
from ctrkit.supervise.explain.scene import Process, Role, Scene, Wait
from ctrkit.supervise.explain.stacks import Frame

DUMPS = Path(__file__).parent / "dumps"
MAIN = 100


def read_frame(text: str) -> Frame:
    place, function = text.rsplit(" ", 1)
    file, line = place.rsplit(":", 1)
    return Frame(file, int(line), function)


def read_process(entry: dict[str, Any]) -> Process:
    progress = entry.pop("progress")
    if progress is not None:
        progress["stage"] = WorkerStage[progress["stage"]]
        progress = WorkerProgress(pid=entry["pid"], **progress)
    stacks = entry.pop("stacks")
    return Process(
        **entry | {"waits": tuple(Wait(**wait) for wait in entry["waits"])},
        threads=tuple(tuple(read_frame(frame) for frame in stack) for stack in stacks),
        progress=progress,
    )


def scene(name: str) -> Scene:
    text = (DUMPS / f"{name}.json").read_text()
    entry = json.loads(text.replace("{ctrkit}", str(Path(ctrkit.__file__).parent)))
    return Scene(
        **entry
        | {
            "processes": tuple(read_process(process) for process in entry["processes"]),
            "dead": tuple(WorkerExit(**one) for one in entry["dead"]),
            "sources": {read_frame(frame): line for frame, line in entry["sources"]},
            "stderr": "\n".join(entry["stderr"]),
            "locks": {int(pid): origin for pid, origin in entry.get("locks", {}).items()},
        }
    )


def alter(found: Scene, pid: int, **changes: Any) -> Scene:
    """The scene with one process changed."""
    changed = (replace(p, **changes) if p.pid == pid else p for p in found.processes)
    return replace(found, processes=tuple(changed))


def cause_of(found: Scene) -> Cause:
    cause = explain(found)
    assert cause is not None
    return cause


def guilty(found: Scene) -> Process:
    return next(p for p in found.processes if p.pid == cause_of(found).guilty_pid)


# name of the scene -> name of the cause, who is guilty, where it stands, a word of `waits_for`
HANGS = {
    "lock_over_fork": ("lock over fork", "worker 0 (pid 101)", "rows.py:22 in hang", "with LOCK"),
    "openmp_over_fork": ("OpenMP over fork", "worker 0 (pid 101)", "rows.py:38 in hang", "libgomp"),
    "gil_held_in_c": (
        "C call holds the GIL", "worker 0 (pid 101)", "rows.py:107 in hang", "pthread_mutex_lock",
    ),
    "regular_expression": ("spin", "worker 0 (pid 101)", "rows.py:59 in hang", "re.match"),
    "spin": ("spin", "worker 0 (pid 101)", "rows.py:55 in hang", "n += 1"),
    "stopped_worker": ("stopped process", "worker 0 (pid 101)", "rows.py:67 in hang", "stopped"),
    "worker_init_fn": (
        "worker_init_fn", "worker 1 (pid 102)", "rows.py:101 in init", "Event().wait",
    ),
    "thread_over_fork": (
        "thread over fork", "worker 0 (pid 101)", "rows.py:32 in hang", "QUEUE.get",
    ),
    "file_lock": ("file lock", "worker 0 (pid 101)", "rows.py:72 in hang", "the.lock"),
    "sleeping_worker": ("stuck", "worker 0 (pid 102)", "rows.py:63 in hang", "timer"),
    "pipe_read": ("stuck", "worker 0 (pid 103)", "rows.py:77 in hang", "pipe:"),
    "start_up": ("worker start-up", "a worker (pid 102)", "slow_import.py:3 in <module>", "wait"),
    "start_up_large": (
        "worker start-up", "a worker (pid 102)", "slow_import.py:3 in <module>", "wait",
    ),
    "import_error_large": (
        "import error in a worker", "a worker (pid 102)", "bad_import.py:3 in <module>", "pipe",
    ),
    "missing_guard_large": (
        "missing __main__ guard", "a worker (pid 102)", "noguard.py:16 in <module>", "pipe",
    ),
    "non_daemon_thread": (
        "non-daemon thread", "the main process", "scenario.py:77 in wait_for_ever", "Event",
    ),
    "deaf_process": (
        "process does not end", "another process (pid 101)", "scenario.py:74 in deaf", "timer",
    ),
    "main_deadlock": ("deadlock", "the main process", "rows.py:28 in hang", "LOCK.acquire"),
    "main_spin": ("spin", "the main process", "rows.py:55 in hang", "n += 1"),
    "main_stuck_workers_idle": (
        "waits for a thread", "the main process", "scenario.py:77 in wait_for_ever", "Event().wait",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HANGS)
def test_a_recorded_hang_is_explained(name: str) -> None:
    found = scene(name)
    cause = cause_of(found)
    expected, who, place, waits_for = HANGS[name]
    assert (cause.name, cause.guilty, cause.place) == (expected, who, place)
    assert found.name(guilty(found)) == who
    assert waits_for in (cause.waits_for or "")
    assert cause.fix
    assert "\n" not in cause.sentence
    assert place in cause.sentence


# name of the scene -> name of the cause, who is guilty, where; None is that nobody can tell
DEATHS = {
    "missing_guard": ("missing __main__ guard", None, "noguard.py:16 in <module>"),
    "import_error": ("import error in a worker", "a worker", "bad_import.py:3 in <module>"),
    "lambda_under_spawn": ("not picklable", None, "scenario.py:26 in train"),
    "open_files": ("too many open files", None, "scenario.py:66 in main"),
    "killed_worker": ("worker killed", "worker 0 (pid 100)", None),
    "worker_exits": ("worker ended itself", "worker 0 (pid 100)", None),
    "worker_raised": ("KeyError in a worker", "worker 0", "rows.py:95 in hang"),
    "bus_error": ("shared memory is full", "worker 0 (pid 100)", None),
}


@pytest.mark.parametrize("name", DEATHS)
def test_a_recorded_death_is_explained(name: str) -> None:
    cause = cause_of(scene(name))
    assert (cause.name, cause.guilty, cause.place) == DEATHS[name]


# -- near misses ---------------------------------------------------------------


def test_a_lock_in_a_spawned_worker_was_not_held_over_a_fork() -> None:
    assert cause_of(replace(scene("lock_over_fork"), start_method="spawn")).name == "deadlock"


def test_a_lock_that_another_thread_of_the_worker_may_hold_was_not_held_over_a_fork() -> None:
    found = scene("lock_over_fork")
    worker = guilty(found)
    other = (Frame("/home/me/rows.py", 99, "refresh"),)
    altered = alter(found, worker.pid, threads=(other, *worker.threads))
    assert cause_of(altered).name == "deadlock"


def test_a_lock_is_only_said_to_be_held_over_a_fork_where_it_is_older_than_the_worker() -> None:
    found = scene("lock_over_fork")
    unknown = cause_of(replace(found, locks={}))
    assert "most likely" not in unknown.sentence
    assert "when the worker was forked, or the worker holds it itself" in unknown.sentence
    assert "RLock" in unknown.fix
    assert "spawn" in unknown.fix
    own = cause_of(replace(found, locks={guilty(found).pid: LockOrigin.OWN}))
    assert own.name == "deadlock"
    assert "fork" not in own.sentence
    assert "spawn" not in own.fix


def test_a_lock_between_processes_is_blamed_on_who_holds_it_and_on_no_thread() -> None:
    found = scene("lock_over_fork")
    worker = guilty(found)
    holder = next(one for one in found.processes if one.pid not in (worker.pid, found.root_pid))
    told = cause_of(replace(found, holders={worker.pid: holder.pid}))
    assert told.name == "lock of another process"
    assert f"that {found.name(holder)} holds" in told.sentence
    unknown = cause_of(replace(found, holders={worker.pid: None}))
    assert "who holds it cannot be told" in unknown.sentence
    assert "thread" not in told.sentence + unknown.sentence


_LIBRARY = "/usr/lib/python3.11/"


@pytest.mark.parametrize(
    ("inside", "name"),
    [
        ([("synchronize.py", "__enter__"), ("queues.py", "get")], "empty queue"),
        ([("connection.py", "_recv"), ("connection.py", "recv_bytes"), ("queues.py", "get")],
         "empty queue"),
        ([("queues.py", "put")], "full queue"),
        ([("synchronize.py", "wait"), ("synchronize.py", "wait")], "missing signal"),
    ],
)  # fmt: skip
def test_a_wait_for_another_process_is_no_lock_over_a_fork(
    inside: list[tuple[str, str]], name: str
) -> None:
    hang = scene("lock_over_fork")
    at = next(n for n, frame in enumerate(guilty(hang).stack) if frame.file.endswith("rows.py"))
    frames = [Frame(f"{_LIBRARY}multiprocessing/{file}", 9, called) for file, called in inside]
    stack = (*frames, *guilty(hang).stack[at:])
    found = cause_of(alter(hang, guilty(hang).pid, threads=(stack,)))
    assert (found.name, found.place) == (name, str(stack[len(frames)]))
    assert "fork" not in found.sentence
    # torch waits in a queue of its own, too: that of a worker that is idle
    torchs = Frame("/usr/lib/python3.11/site-packages/torch/utils/data/x.py", 9, "next")
    alone = alter(hang, guilty(hang).pid, threads=((*frames, torchs, *stack[len(frames) :]),))
    assert cause_of(alone).name != name


def test_without_the_kernels_word_a_lock_is_told_by_its_line() -> None:
    found = scene("lock_over_fork")
    blind = alter(found, guilty(found).pid, waits=())
    assert cause_of(blind).name == "lock over fork"
    assert cause_of(replace(blind, sources={})).name == "stuck"


def test_openmp_needs_its_library_or_a_fork() -> None:
    found = scene("openmp_over_fork")
    pid = guilty(found).pid
    blind = alter(found, pid, waits=())
    assert "most likely" in cause_of(blind).sentence  # as on macOS
    assert cause_of(replace(blind, start_method="spawn")).name == "stuck"
    elsewhere = alter(found, pid, waits=(Wait(thread=pid, syscall="read", library="libc.so.6"),))
    assert cause_of(elsewhere).name == "stuck"


def test_mps_over_fork_is_named_where_the_device_is_mps() -> None:
    found = scene("openmp_over_fork")
    blind = replace(alter(found, guilty(found).pid, waits=()), device="mps")
    assert cause_of(blind).name == "MPS over fork"
    assert "178037" in " ".join(cause_of(blind).references)
    assert cause_of(replace(blind, start_method="spawn")).name == "stuck"
    assert cause_of(replace(scene("lock_over_fork"), device="mps")).name == "lock over fork"


def test_the_main_process_waiting_for_mps_is_at_fault_itself() -> None:
    synchronize = Frame(
        "/env/lib/python3.11/site-packages/torch/mps/__init__.py", 40, "synchronize"
    )
    main = Process(pid=MAIN, threads=((synchronize, Frame("/home/me/train.py", 5, "step")),))
    cause = cause_of(Scene(root_pid=MAIN, processes=(main,), device="mps"))
    assert (cause.name, cause.place) == ("MPS", "train.py:5 in step")


def test_who_only_sleeps_holds_no_gil_even_if_the_main_process_is_in_the_handshake() -> None:
    found = scene("gil_held_in_c")
    assert "so that the main process waits" in cause_of(found).sentence
    worker = guilty(found)
    calm = tuple(replace(wait, wakes_per_s=0.0) for wait in worker.waits)
    unsure = replace(alter(found, worker.pid, waits=calm), sources={})
    assert "frozen or holds the GIL" in cause_of(unsure).sentence


def test_threads_that_take_turns_on_the_gil_do_not_prove_a_holder() -> None:
    worker = guilty(scene("gil_held_in_c"))
    assert worker.holds_gil
    turns = tuple(replace(wait, wakes_per_s=190.0) for wait in worker.waits)
    assert not replace(worker, waits=turns).holds_gil


def test_a_handshake_that_no_busy_worker_explains_is_still_named() -> None:
    found = scene("gil_held_in_c")
    idle = [p for p in found.living_workers() if p.is_idle]
    rest = tuple(p for p in found.processes if found.role(p) is not Role.WORKER or p in idle)
    assert cause_of(replace(found, processes=rest)).name == "lost handshake"


def test_an_idle_process_does_not_spin() -> None:
    found = scene("spin")
    assert cause_of(alter(found, guilty(found).pid, cores=0.02)).name == "stuck"


def test_a_program_that_imports_is_not_called_a_loop_without_an_end() -> None:
    found = scene("main_spin")
    importing = Frame("<frozen importlib._bootstrap>", 241, "_call_with_frames_removed")
    main = found.main
    stack = (*main.stack, importing, Frame("/home/me/train.py", 3, "<module>"))
    cause = cause_of(alter(found, main.pid, threads=(*main.threads[:-1], stack)))
    assert cause.name == "import"
    assert "still imports modules" in cause.sentence
    assert "does not end" not in cause.sentence


def test_a_loop_is_not_called_a_regular_expression() -> None:
    assert "regular expression" in cause_of(scene("regular_expression")).sentence
    assert "regular expression" not in cause_of(scene("spin")).sentence


def test_a_stopped_worker_that_goes_on_is_not_blamed_for_that() -> None:
    found = scene("stopped_worker")
    going = alter(found, guilty(found).pid, status=psutil.STATUS_SLEEPING)
    assert cause_of(going).name != "stopped process"


def test_the_worker_whose_turn_it_is_comes_first() -> None:
    found = replace(scene("lock_over_fork"), step=0)
    stacks = guilty(found).threads
    busy = [
        replace(p, threads=stacks, progress=replace(p.progress, stage=WorkerStage.FETCHING))
        for p in found.living_workers()
        if p.progress is not None
    ]
    both = replace(found, processes=(found.main, *busy))
    assert cause_of(both).guilty == f"worker 0 (pid {busy[0].pid})"
    assert cause_of(replace(both, step=3)).guilty == f"worker 1 (pid {busy[1].pid})"


def test_a_hang_in_the_data_set_is_not_one_in_worker_init_fn() -> None:
    found = scene("worker_init_fn")
    fetch = Frame("/env/lib/python3.11/site-packages/torch/utils/data/_utils/fetch.py", 54, "fetch")
    worker = guilty(found)
    at = next(i for i, f in enumerate(worker.stack) if f.function == "_worker_loop")
    stack = (*worker.stack[:at], fetch, *worker.stack[at:])
    assert cause_of(alter(found, worker.pid, threads=(stack,))).name != "worker_init_fn"


def test_a_lost_batch_shows_the_workers_last_words() -> None:
    cause = cause_of(scene("lost_batch"))
    assert cause.name == "lost batch"
    assert "Can't pickle local object" in cause.sentence
    assert (cause.guilty or "").startswith("worker 0")
    silent = cause_of(replace(scene("lost_batch"), stderr=""))
    assert silent.name == "lost batch"
    assert "nothing says why" in silent.sentence


def test_a_batch_lost_for_want_of_descriptors_is_called_so() -> None:
    stderr = "RuntimeError: unable to open shared memory object </torch_1> in read-write mode: " \
             "Too many open files (24)\n"  # fmt: skip
    cause = cause_of(replace(scene("lost_batch"), stderr=stderr))
    assert cause.name == "too many open files"
    assert "a batch was lost" in cause.sentence


FEEDER = """Traceback (most recent call last):
  File "/usr/lib/python3.11/multiprocessing/queues.py", line 244, in _feed
    obj = _ForkingPickler.dumps(obj)
{}
"""


@pytest.mark.parametrize(
    ("said", "name", "fix"),
    [
        ("AttributeError: Can't pickle local object 'f.<locals>.g'", "lost batch", "be pickled"),
        ("TypeError: cannot pickle '_io.TextIOWrapper' object", "lost batch", "be pickled"),
        ("OSError: AF_UNIX path too long", "socket's path too long", "set TMPDIR"),
        ("OSError: AF_UNIX path length cannot exceed 107 bytes: '/x/y'", "socket's path too long",
         "set TMPDIR"),
        ("RuntimeError: Cowardly refusing to serialize non-leaf tensor which requires_grad",
         "lost batch", "tensor.detach()"),
        ("PermissionError: [Errno 13] Permission denied", "lost batch", "that error names"),
    ],
)  # fmt: skip
def test_the_advice_for_a_batch_that_could_not_be_sent_fits_its_error(
    said: str, name: str, fix: str
) -> None:
    cause = cause_of(replace(scene("lost_batch"), stderr=FEEDER.format(said)))
    assert cause.name == name
    assert said.removeprefix("OSError: ") in cause.sentence
    assert fix in cause.fix
    assert ("pickled" in cause.fix) == ("pickle" in said)


def test_a_worker_that_died_while_the_others_are_idle_is_named() -> None:
    found = scene("lost_batch")
    dead = WorkerExit(pid=7, worker=1, exit_code=-9)
    cause = cause_of(replace(found, dead=(dead,)))
    assert cause.name == "worker killed"
    assert cause.guilty == "worker 1 (pid 7)"
    assert "cause unknown" in cause.sentence


def test_only_a_counter_proves_that_memory_killed() -> None:
    found = scene("killed_worker")
    assert "cause unknown" in cause_of(found).sentence
    proved = cause_of(replace(found, oom_kills=1))
    assert proved.name == "out of memory"
    assert (proved.guilty or "").startswith("worker 0")


def test_no_words_and_a_dead_worker_at_the_pipe() -> None:
    found = replace(scene("import_error_large"), stderr="")
    assert cause_of(found).name == "worker died while it started"


def test_a_reader_that_lives_is_not_called_dead() -> None:
    """A parent that writes to a worker which is still starting: the worker is to blame."""
    cause = cause_of(scene("start_up_large"))
    assert "died" not in cause.sentence
    assert "data set" in cause.sentence


def test_a_daemon_thread_is_not_what_shutdown_waits_for() -> None:
    found = scene("non_daemon_thread")
    feeder = (Frame("/usr/lib/python3.11/threading.py", 327, "wait"),
              Frame("/usr/lib/python3.11/multiprocessing/queues.py", 231, "_feed"))  # fmt: skip
    threads = (feeder, *found.main.threads)
    cause = cause_of(alter(found, found.main.pid, threads=threads))
    assert "wait_for_ever" in (cause.place or "")


def test_a_process_that_obeys_is_not_called_deaf() -> None:
    found = scene("deaf_process")
    assert "does not obey SIGTERM" in cause_of(found).sentence
    obeys = alter(found, guilty(found).pid, ignores_sigterm=False)
    assert "does not obey" not in cause_of(obeys).sentence


def in_shutdown(*frames: tuple[str, str]) -> Scene:
    """The recorded process that ignores SIGTERM, its parent standing elsewhere."""
    found = scene("deaf_process")
    stack = tuple(Frame(f"/usr/lib/python3.11/{file}", 1, function) for file, function in frames)
    return alter(found, found.main.pid, threads=(stack,))


def test_torchs_own_shutdown_waits_for_a_process_too() -> None:
    loader = "site-packages/torch/utils/data/dataloader.py"
    join = ("multiprocessing/popen_fork.py", "poll")
    assert cause_of(in_shutdown(join, (loader, "_shutdown_workers"))).name == "process does not end"
    assert cause_of(in_shutdown(join, (loader, "_next_data"))).name != "process does not end"


def test_a_queue_that_nobody_reads_keeps_its_owner_from_ending() -> None:
    join = ("threading.py", "join")
    finalize = ("multiprocessing/queues.py", "_finalize_join")
    end = ("multiprocessing/util.py", "_exit_function")
    assert cause_of(in_shutdown(join, finalize, end)).name == "queue not emptied"
    assert cause_of(in_shutdown(join, end)).name == "process does not end"


def test_a_thread_of_an_executor_keeps_the_interpreter_too() -> None:
    found = scene("non_daemon_thread")
    stack = (Frame("/usr/lib/python3.11/concurrent/futures/thread.py", 31, "_python_exit"),)
    threads = (*found.main.threads[:-1], stack)
    assert cause_of(alter(found, found.main.pid, threads=threads)).name == "non-daemon thread"
    running = (Frame("/home/me/train.py", 31, "main"),)
    threads = (*found.main.threads[:-1], running)
    assert cause_of(alter(found, found.main.pid, threads=threads)).name != "non-daemon thread"


def test_a_fork_server_that_does_not_read_is_a_pipe_too() -> None:
    found = scene("import_error_large")
    launch = Frame("/usr/lib/python3.11/multiprocessing/popen_forkserver.py", 60, "_launch")
    blocked = alter(found, found.main.pid, threads=((launch, *found.main.stack[1:]),))
    assert cause_of(blocked).name == "import error in a worker"
    pickles = Frame("/usr/lib/python3.11/multiprocessing/reduction.py", 60, "dump")
    busy = alter(found, found.main.pid, threads=((pickles, launch, *found.main.stack[1:]),))
    assert "larger than a pipe" not in cause_of(busy).sentence


# -- last words ----------------------------------------------------------------


def said(stderr: str, **known: Any) -> Cause | None:
    return explain(Scene(root_pid=MAIN, verdict="crashed", stderr=stderr, **known))


def test_a_full_disk_is_not_full_shared_memory() -> None:
    assert said("OSError: [Errno 28] No space left on device: '/data/checkpoint.pt'\n") is None
    full = said(
        "RuntimeError: unable to write to file </torch_12_34>: No space left on device (28)\n"
    )
    assert full is not None
    assert full.name == "shared memory is full"


def test_cuda_in_a_forked_worker() -> None:
    cause = said("RuntimeError: Cannot re-initialize CUDA in forked subprocess. To use CUDA with\n")
    assert cause is not None
    assert cause.name == "CUDA over fork"
    assert said("RuntimeError: CUDA error: no kernel image is available\n") is None


def test_memory_by_its_own_words_and_by_a_limit() -> None:
    device = said("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB\n")
    assert device is not None
    assert "device" in device.sentence
    for words in (
        "torch.AcceleratorError: CUDA error: out of memory",
        "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "RuntimeError: cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "RuntimeError: MPS backend out of memory (MPS allocated: 9 GB, max allowed: 18 GB)",
    ):
        sibling = said(f"{words}\n")
        assert sibling is not None
        assert sibling.sentence.startswith("the device has no memory left: ")
        assert sibling.sentence.endswith(words[-20:])
    host = said("MemoryError: Unable to allocate 4 GiB\n", limits={"RLIMIT_AS": 2**31})
    assert host is not None
    assert "under a limit of 2" in host.sentence
    free = said("MemoryError: Unable to allocate 4 GiB\n")
    assert free is not None
    assert "limit" not in free.sentence
    assert said("the memory of it\n") is None


_ASSERTED = """\
/pytorch/aten/src/ATen/native/cuda/IndexKernel.cu:94: operator(): block: [0,0,0], thread: [0,0,0] \
Assertion `-sizes[i] <= index && index < sizes[i] && "index out of bounds"` failed.
Traceback (most recent call last):
  File "/home/me/train.py", line 50, in go_wrong
    print(picked.sum().item())
          ^^^^^^^^^^^^^^^^^^^
torch.AcceleratorError: CUDA error: {}
CUDA kernel errors might be asynchronously reported at some other API call.
"""


@pytest.mark.parametrize(
    "what", ["device-side assert triggered", "an illegal memory access was encountered",
             "unspecified launch failure"],
)  # fmt: skip
def test_an_error_of_the_device_has_its_line_and_says_that_it_came_late(what: str) -> None:
    found = said(_ASSERTED.format(what))
    assert found is not None
    assert found.name == "error on the device"
    assert what in found.sentence
    assert "train.py:50 in go_wrong" in found.sentence
    assert "which is where it was noticed" in found.sentence
    assert "CUDA_LAUNCH_BLOCKING=1" in found.fix
    assert said("ValueError: the word CUDA and an error: none\n") is None


def test_torch_names_a_dead_worker_whose_exit_code_nobody_read() -> None:
    cause = said(
        "RuntimeError: DataLoader worker (pid 321) is killed by signal: Segmentation fault.\n"
    )
    assert cause is not None
    assert cause.guilty_pid == 321
    assert "SIGSEGV" in cause.sentence


def test_the_one_that_died_of_itself_is_named_not_those_that_torch_ended() -> None:
    dead = (WorkerExit(pid=1, worker=0, exit_code=-15), WorkerExit(pid=2, worker=1, exit_code=3))
    cause = said("", dead=dead)
    assert cause is not None
    assert cause.guilty == "worker 1 (pid 2)"
    assert "code 3" in cause.sentence
    assert said("", dead=(WorkerExit(pid=1, worker=0, exit_code=0),)) is None


def test_a_segmentation_fault_leaves_its_place() -> None:
    stderr = """Fatal Python error: Segmentation fault

Current thread 0x00007f85c75beb80 (most recent call first):
  File "/usr/lib/python3.11/ctypes/__init__.py", line 519 in string_at
  File "/home/me/rows.py", line 12 in __getitem__
"""
    cause = said(stderr)
    assert cause is not None
    assert cause.place == "rows.py:12 in __getitem__"


def test_any_other_exception_is_its_own_cause() -> None:
    error = (
        'Traceback (most recent call last):\n  File "/home/me/t.py", line 3, in f\nKeyError: 7\n'
    )
    cause = explain(Scene(root_pid=MAIN, verdict="crashed", error=error))
    assert cause is not None
    assert (cause.name, cause.place) == ("KeyError", "t.py:3 in f")


def test_ctrkits_own_words_on_bad_input_stand_alone() -> None:
    said = "own.py:make_loader returned a tuple of 2 DataLoaders: return one alone"
    error = f"Traceback (most recent call last):\nctrkit.child.workloads.returned.X-Error: {said}\n"
    cause = explain(Scene(root_pid=1, error=error.replace("X-", "NotBatches"), verdict="usage"))
    assert cause is not None
    assert cause.sentence == said


def test_words_from_before_do_not_explain_a_hang_elsewhere() -> None:
    found = replace(scene("lock_over_fork"), stderr="OSError: [Errno 24] Too many open files\n")
    assert cause_of(found).name == "lock over fork"


def test_nothing_known_is_no_cause() -> None:
    assert explain(Scene(root_pid=MAIN)) is None
    assert explain(Scene(root_pid=MAIN, processes=(Process(pid=MAIN),))) is None


# -- roles ---------------------------------------------------------------------


def test_roles_are_told_from_what_each_process_shows() -> None:
    found = scene("pipe_read")
    roles = {found.role(process) for process in found.processes}
    assert roles == {Role.MAIN, Role.WORKER, Role.FORKSERVER, Role.RESOURCE_TRACKER}
    assert found.name(found.main) == "the main process"
    assert [found.role(p) for p in found.living_workers()] == [Role.WORKER]


def test_a_process_of_the_users_own_is_no_worker() -> None:
    found = scene("deaf_process")
    assert found.living_workers() == []


NAMES = sorted({*HANGS, *DEATHS, "lost_batch"})


@given(
    name=st.sampled_from(NAMES),
    method=st.sampled_from([None, "fork", "spawn", "forkserver"]),
    stacks=st.booleans(),
    waits=st.booleans(),
    keep=st.integers(1, 4),
    verdict=st.sampled_from(["deadlock", "stalled", "shutdown-hang", "worker-died", "crashed"]),
)
def test_whatever_is_missing_it_says_something_or_nothing_but_never_fails(
    name: str, method: str | None, stacks: bool, waits: bool, keep: int, verdict: str
) -> None:
    found = scene(name)
    processes = tuple(
        replace(p, threads=p.threads if stacks else (), waits=p.waits if waits else ())
        for p in found.processes[:keep]
    )
    cause = explain(replace(found, processes=processes, start_method=method, verdict=verdict))
    if cause is not None:
        known = {p.pid for p in processes} | {one.pid for one in found.dead}
        assert cause.name
        assert cause.sentence.strip() == cause.sentence != ""
        assert "None" not in cause.sentence
        assert cause.guilty_pid is None or cause.guilty_pid in known
