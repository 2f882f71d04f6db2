"""Words a cause as one sentence; holds the phrases and references that patterns share."""

from __future__ import annotations

from dataclasses import dataclass

from ctrkit.supervise.explain.scene import Process, Role, Scene, place_of
from ctrkit.supervise.explain.stacks import Frame, user_frame

_PYTORCH = "https://github.com/pytorch/pytorch/issues"
_PYTHON_DOCS = "https://docs.python.org/3/library"
REFERENCES = {
    "lock over fork": ("https://github.com/h5py/h5py/issues/2584", f"{_PYTORCH}/75147"),
    "thread over fork": (f"{_PYTHON_DOCS}/os.html#os.fork",),
    "OpenMP over fork": (f"{_PYTORCH}/17199", f"{_PYTORCH}/45198", f"{_PYTORCH}/1355"),
    "MPS over fork": (f"{_PYTORCH}/178037", f"{_PYTORCH}/78924", f"{_PYTORCH}/104761"),
    "MPS": (f"{_PYTORCH}/144634", f"{_PYTORCH}/141296"),
    "error on the device": (
        "https://pytorch.org/docs/stable/notes/cuda.html#asynchronous-execution",
    ),
    "CUDA over fork": (
        "https://pytorch.org/docs/stable/notes/multiprocessing.html#cuda-in-multiprocessing",
    ),
    "shared memory": (f"{_PYTORCH}/5040", f"{_PYTORCH}/14768"),
    "open files": (f"{_PYTORCH}/973", f"{_PYTORCH}/11201"),
    "socket path": ("https://github.com/python/cpython/issues/132124",),
    "pickling": (f"{_PYTHON_DOCS}/multiprocessing.html#the-spawn-and-forkserver-start-methods",),
    "guard": (f"{_PYTHON_DOCS}/multiprocessing.html#the-spawn-and-forkserver-start-methods",),
    "spawn pipe": ("https://github.com/python/cpython/issues/118981",),
    "handshake": (f"{_PYTORCH}/96629",),
    "worker shutdown": (f"{_PYTORCH}/39570", f"{_PYTORCH}/39869", f"{_PYTORCH}/81794"),
    "worker killed": (f"{_PYTORCH}/21554",),
    "threads": (f"{_PYTHON_DOCS}/threading.html#threading.Thread.daemon",),
}

_KERNEL = {
    "futex": "a lock", "nanosleep": "a timer", "clock_nanosleep": "a timer", "wait4": "a child",
    "waitid": "a child", "flock": "a file lock", "fcntl": "a file lock", "pause": "a signal",
    "rt_sigsuspend": "a signal", "rt_sigtimedwait": "a signal",
}  # fmt: skip
_READS = ("read", "readv", "pread64", "recvfrom", "recvmsg", "accept", "accept4")
_WRITES = ("write", "writev", "pwrite64", "sendto", "sendmsg", "connect")


@dataclass(frozen=True, kw_only=True)
class Cause:
    """Why a child hung or died, as far as the scene shows it. None or empty if unknown.

    Attributes:
        sentence: the whole cause, without the fix.
        guilty: the guilty process, as the sentence names it.
        place: `file.py:line in function`.
        waits_for: the source line, the innermost call and the kernel's wait.
    """

    name: str
    sentence: str
    guilty_pid: int | None = None
    guilty: str | None = None
    place: str | None = None
    waits_for: str | None = None
    fix: str = ""
    references: tuple[str, ...] = ()


def blame(
    scene: Scene, process: Process, name: str, says: str, *, fix: str = "", about: str = "",
    place: Frame | None = None,
) -> Cause:  # fmt: skip
    """A cause whose sentence names the guilty process and its place, followed by `says`."""
    place = place or place_of(process)
    who = scene.name(process)
    return Cause(
        name=name,
        sentence=f"{who} {at(scene, place)}{says}",
        guilty_pid=process.pid,
        guilty=who,
        place=str(place) if place else None,
        waits_for=waits_for(scene, process, place),
        fix=fix,
        references=REFERENCES.get(about, ()),
    )


def at(scene: Scene, place: Frame | None) -> str:
    """`at rows.py:9 in __getitem__ (`with lock:`) `; empty without a place."""
    if place is None:
        return ""
    source = scene.source(place)
    return f"at {place} (`{source}`) " if source else f"at {place} "


def waits_for(scene: Scene, process: Process, place: Frame | None) -> str | None:
    """The source line, the innermost call if it is a library's, and the kernel's wait."""
    parts = []
    if source := scene.source(place):
        parts.append(f"`{source}`")
    if process.stack and place is not None and place in process.stack and process.stack[0] != place:
        parts.append(f"inside {process.stack[0]}")
    if kernel := kernel_wait(process):
        parts.append(kernel)
    return ", ".join(parts) or None


def kernel_wait(process: Process) -> str | None:
    """What its main thread waits for in the kernel, in words; None if unknown."""
    wait = process.wait
    if process.is_stopped:
        return "stopped"
    if wait is None or wait.syscall is None:
        return None
    call, target = wait.syscall, wait.target
    where = f" in {wait.library}" if wait.library else ""
    if call in _READS or call in _WRITES:
        kind = "reads from" if call in _READS else "writes to"
        return f"{kind} {target or 'a file, pipe or socket'} ({call})"
    if call in _KERNEL:
        return f"waits for {_KERNEL[call]}{f' on {target}' if target else ''} ({call}{where})"
    return f"waits in {call}{where}{f' for {target}' if target else ''}"


def others_in_user_code(process: Process) -> bool:
    """Whether other threads of the process are in user code."""
    return any(user_frame(thread) for thread in process.threads[:-1])


def is_worker(scene: Scene, process: Process) -> bool:
    """Whether the process is a DataLoader worker."""
    return scene.role(process) is Role.WORKER
