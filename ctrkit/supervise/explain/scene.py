"""The scene of a hang or a death: what is known of each process, and which part it plays."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

import psutil

from ctrkit.core.child_records import WorkerExit
from ctrkit.core.progress import WorkerProgress, WorkerStage
from ctrkit.supervise.explain.stacks import (
    Frame,
    Thread,
    find_frame,
    our_frame,
    own_part,
    user_frame,
)
from ctrkit.supervise.sampler import STOPPED_STATES

BURNING_CORES = 0.5
_GIL_WAKES_PER_S = 60.0  # a thread that waits for the GIL wakes every 5 ms to ask for it
_TORCH_WORKER = "torch/utils/data/_utils/worker.py"
_TORCH_LOADER = "torch/utils/data/dataloader.py"
_WORKER_NAME = "pt_data_worker"  # the process name of workers in torch 2.6 and newer


class Role(StrEnum):
    """The part that a process plays."""

    MAIN = "main process"
    WORKER = "worker"
    FORKSERVER = "forkserver"
    RESOURCE_TRACKER = "resource tracker"
    OTHER = "other process"


@dataclass(frozen=True, kw_only=True)
class Wait:
    """Where a thread of a Linux process waits in the kernel; None for what is unknown.

    Attributes:
        syscall: name of the system call.
        target: the file, pipe or socket that it is about.
        operation: the operation of a futex.
        library: the file whose code made the call.
        wakes_per_s: its voluntary context switches per second.
    """

    thread: int
    syscall: str | None = None
    target: str | None = None
    operation: int | None = None
    library: str | None = None
    wakes_per_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Process:
    """One process: what the system knows, its stacks, and its own progress.

    Attributes:
        status: psutil's word.
        exit_code: of a zombie, negative for a signal.
        cores: cores that it used while it was examined, or would have used on a free host.
        threads: stacks; the main thread's comes last. Empty if nothing could be read.
        ignores_sigterm: whether it ignores or handles SIGTERM.
    """

    pid: int
    parent_pid: int | None = None
    name: str = ""
    command: Sequence[str] = ()
    status: str = psutil.STATUS_SLEEPING
    exit_code: int | None = None
    cores: float | None = None
    rss_bytes: int | None = None
    threads: tuple[Thread, ...] = ()
    waits: tuple[Wait, ...] = ()
    ignores_sigterm: bool = False
    progress: WorkerProgress | None = None

    @property
    def stack(self) -> Thread:
        """The main thread's frames, without those that a fork copied."""
        return own_part(self.threads[-1]) if self.threads else ()

    @property
    def wait(self) -> Wait | None:
        """Where its main thread waits in the kernel."""
        return next((wait for wait in self.waits if wait.thread == self.pid), None)

    @property
    def is_stopped(self) -> bool:
        """Whether it was stopped by a signal."""
        return self.status in STOPPED_STATES

    @property
    def is_dead(self) -> bool:
        """Whether it has ended, reaped or not."""
        return self.status in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)

    @property
    def is_burning(self) -> bool:
        """Whether it used CPU while it was examined."""
        return self.cores is not None and self.cores >= BURNING_CORES

    @property
    def in_loop(self) -> bool:
        """Whether torch's worker loop runs in it."""
        return find_frame(self.stack, _TORCH_WORKER, "_worker_loop") is not None

    @property
    def is_idle(self) -> bool:
        """Whether it is a worker that waits for the indices of its next batch."""
        if self.stack and self.in_loop:
            return _is_idle_loop(self.stack)
        return self.progress is not None and self.progress.stage is WorkerStage.IDLE

    @property
    def holds_gil(self) -> bool:
        """Whether its main thread holds the GIL while another thread wakes to ask for it.

        A thread that wants the GIL waits in a futex, and Python knows that thread. Threads of a
        library (gloo's, for example) wake as often, in a futex or to poll a socket, but have no
        Python stack.
        """
        if len(self.threads) == 1:
            return False
        others = [
            wait.wakes_per_s or 0.0
            for wait in self.waits
            if wait.thread != self.pid and wait.syscall in ("futex", None)
        ]
        own = self.wait
        asks_itself = own is not None and (own.wakes_per_s or 0.0) >= _GIL_WAKES_PER_S
        return not asks_itself and any(rate >= _GIL_WAKES_PER_S for rate in others)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Everything known at the verdict.

    Args:
        root_pid: the child, which is the main process of the training; of several ranks, the guilty
            one.
        processes: the living family with zombies, the root first; empty after its end.
        dead: workers that are known to have ended.
        stderr: the end of stderr.
        crashes: by pid, what Python's fault handler wrote for workers that crashed in C.
        error: the traceback of the exception that ended the child, if there was one.
        verdict: one of `ctrkit.core.records.VERDICTS`.
        stage: label of the progress stage.
        step: steps done in this epoch.
        start_method: start method of the workers.
        workers: number of workers in the cell.
        device: device of the training step.
        oom_kills: processes of the family that the kernel provably killed for memory.
        limits: resource limits set for the child, in bytes or counts (`RLIMIT_AS`, ...).
        sources: source lines, stripped, at which user code is.
        locks: by pid, the `LockOrigin` of the lock that it waits for; missing if unknown.
        holders: by the pid of a process that waits for a `multiprocessing` lock, the pid of its
            holder; None if unknown.
        ranks: if several processes train together, their ranks by pid.
        others_wait: whether other ranks were seen to wait for the root's rank.
        main_name: the main process's name in sentences.
        is_script: the root may be a script's launcher or shell; see `narrowed`.
    """

    root_pid: int
    processes: tuple[Process, ...] = ()
    dead: tuple[WorkerExit, ...] = ()
    stderr: str = ""
    crashes: Mapping[int, str] = field(default_factory=dict)
    error: str = ""
    verdict: str = "deadlock"
    stage: str = ""
    step: int = 0
    start_method: str | None = None
    workers: int = 0
    device: str = "cpu"
    oom_kills: int = 0
    limits: Mapping[str, int] = field(default_factory=dict)
    sources: Mapping[Frame, str] = field(default_factory=dict)
    locks: Mapping[int, str] = field(default_factory=dict)
    holders: Mapping[int, int | None] = field(default_factory=dict)
    ranks: Mapping[int, int] = field(default_factory=dict)
    others_wait: bool = False
    main_name: str = "the main process"
    is_script: bool = False

    @property
    def main(self) -> Process:
        """The main process; an empty `Process` after its end."""
        found = (process for process in self.processes if process.pid == self.root_pid)
        return next(found, Process(pid=self.root_pid, status=psutil.STATUS_DEAD))

    @property
    def words(self) -> str:
        """The error and the end of stderr."""
        return f"{self.error}\n{self.stderr}"

    def role(self, process: Process) -> Role:
        """The part that the process plays."""
        if process.pid == self.root_pid:
            return Role.MAIN
        command = " ".join(process.command)
        if "multiprocessing.resource_tracker" in command or "torch_shm_manager" in command:
            return Role.RESOURCE_TRACKER
        if process.progress is not None or process.in_loop or process.name == _WORKER_NAME:
            return Role.WORKER
        if "multiprocessing.forkserver" in command and process.parent_pid == self.root_pid:
            return Role.FORKSERVER
        if "multiprocessing.spawn" in command or "multiprocessing.forkserver" in command:
            return Role.OTHER if _runs_other_target(process.stack) else Role.WORKER
        if process.is_dead and process.parent_pid == self.root_pid and self.workers:
            return Role.WORKER if process.pid in {one.pid for one in self.dead} else Role.OTHER
        return Role.OTHER

    def living_workers(self) -> list[Process]:
        """Workers that have not ended, in order of their numbers."""
        found = [p for p in self.processes if self.role(p) is Role.WORKER and not p.is_dead]
        return sorted(found, key=lambda p: p.progress.worker if p.progress else self.workers)

    def name(self, process: Process) -> str:
        """Its name in a sentence: `worker 1 (pid 123)`, `the main process`."""
        role = self.role(process)
        if role is Role.MAIN:
            return self.main_name
        if process.pid in self.ranks:
            return f"rank {self.ranks[process.pid]} (pid {process.pid})"
        if role is Role.WORKER:
            number = f"worker {process.progress.worker}" if process.progress else "a worker"
            return f"{number} (pid {process.pid})"
        return f"{'another process' if role is Role.OTHER else f'the {role}'} (pid {process.pid})"

    def awaited_worker(self) -> int | None:
        """The number of the worker whose batch comes next: torch delivers in order."""
        return self.step % self.workers if self.workers else None

    def source(self, frame: Frame | None) -> str:
        """The source line of a frame; empty if it could not be read."""
        return self.sources.get(frame, "") if frame is not None else ""


def start_method_of(workers: Sequence[Process], processes: Sequence[Process]) -> str | None:
    """The start method of these workers, from their commands; None without workers."""
    if not workers:
        return None
    if any("multiprocessing.spawn" in " ".join(one.command) for one in workers):
        return "spawn"
    servers = {p.pid for p in processes if "multiprocessing.forkserver" in " ".join(p.command)}
    return "forkserver" if any(one.parent_pid in servers for one in workers) else "fork"


def narrowed(scene: Scene) -> Scene:
    """The scene without processes above the training one; of several ranks, the late one.

    A rank is late if its stack is not where ranks wait for each other, and another's is.
    """
    late = late_rank(scene.processes, scene.ranks)
    root = scene.root_pid if late is None else late
    name = scene.main_name
    if root in scene.ranks and len(scene.ranks) > 1:
        name = f"rank {scene.ranks[root]} (pid {root})"
    return replace(
        scene, root_pid=root, main_name=name, others_wait=late is not None,
        processes=tuple(descendants(root, scene.processes)),
    )  # fmt: skip


def descendants(root_pid: int, processes: Sequence[Process]) -> list[Process]:
    """The root and all its descendants, the root first."""
    pids, grown = {root_pid}, True
    while grown:
        more = {one.pid for one in processes if one.parent_pid in pids} - pids
        pids |= more
        grown = bool(more)
    return sorted((one for one in processes if one.pid in pids), key=lambda p: p.pid != root_pid)


def late_rank(processes: Sequence[Process], ranks: Mapping[int, int]) -> int | None:
    """The pid of the rank that the others wait for; None if unknown."""
    seen = [one for one in processes if one.pid in ranks and one.stack]
    late = [one for one in seen if not _waits_for_ranks(one)]
    if not late or len(late) == len(seen):
        return next((one.pid for one in processes if one.pid in ranks and one.is_stopped), None)
    return min(late, key=lambda one: ranks[one.pid]).pid


def _waits_for_ranks(process: Process) -> bool:
    """Whether it is in a collective, or in backward, where DDP waits for other ranks."""
    waits = ("/torch/distributed/", "/torch/autograd/", "/torch/_tensor.py")
    return any(part in frame.file for frame in process.stack for part in waits)


def waits_for_loader(process: Process) -> bool:
    """Whether the main thread takes a batch from workers."""
    takes = ("_next_data", "_get_data", "_try_get_data")
    iterator = find_frame(process.stack, _TORCH_LOADER, *takes)
    inside = find_frame(process.stack, "torch/utils/data/_utils/fetch.py")
    return iterator is not None and inside is None


def place_of(process: Process) -> Frame | None:
    """The frame where it is: in user code, else in ctrkit's, else the innermost one.

    The main thread comes before the other threads, which may work for it.
    """
    stacks = [process.stack, *process.threads[:-1]]
    for choose in (user_frame, our_frame):
        for stack in stacks:
            if not (choose is our_frame and process.in_loop) and (frame := choose(stack)):
                return frame
    return process.stack[0] if process.stack else None


def _is_idle_loop(stack: Thread) -> bool:
    """Whether only the queue's `get` lies between torch's loop and the innermost frame."""
    for index, frame in enumerate(stack):
        if frame.is_in(_TORCH_WORKER, "_worker_loop"):
            inner = stack[:index]
            return any(one.is_in("multiprocessing/queues.py", "get") for one in inner) and not any(
                one.is_in("torch/utils/data/_utils/fetch.py") for one in inner
            )
    return False


def _runs_other_target(stack: Thread) -> bool:
    """Whether it is the user's own process: it runs a target other than torch's loop."""
    return find_frame(stack, "multiprocessing/process.py", "run") is not None


def last_error(text: str) -> str:
    """The last line that names an exception, shortened; empty if none does."""
    lines = re.findall(r"^(?:\w+\.)*\w*(?:Error|Exception|Interrupt|Exit): .*$", text, re.MULTILINE)
    return lines[-1][:500] if lines else ""
