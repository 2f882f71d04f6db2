"""Why a family makes no progress, from what the kernel shows, without any Python stack."""

from __future__ import annotations

from ctrkit.supervise.explain.hangs import stopped
from ctrkit.supervise.explain.scene import Process, Scene
from ctrkit.supervise.explain.sentences import Cause, blame, kernel_wait

_FIX = "read its Python stacks to see the line"
_FILE_LOCKS = ("flock", "fcntl")
_FOR_WORK = ("poll", "ppoll", "select", "pselect6")


def cause_of_waits(scene: Scene) -> Cause | None:
    """Which process waits for what: a stopped one, a busy worker, or the main process.

    None if the system does not show what a process waits for.
    """
    if cause := stopped(scene):
        return cause
    workers = [one for one in scene.living_workers() if not _waits_for_work(one)]
    for process in (*workers, scene.main):
        if cause := _cause(scene, process):
            return cause
    return None


def _waits_for_work(worker: Process) -> bool:
    """Whether it looks like an idle worker: it polls its queue and uses no CPU."""
    return not worker.is_burning and (worker.wait is None or worker.wait.syscall in _FOR_WORK)


def _cause(scene: Scene, process: Process) -> Cause | None:
    if process.is_burning:
        return blame(scene, process, "burns CPU", f"burns {process.cores or 0:.1f} cores; only "
                     "its Python stacks would show at which line", fix=_FIX)  # fmt: skip
    says = kernel_wait(process)
    if says is None:
        return None
    name = "file lock" if process.wait and process.wait.syscall in _FILE_LOCKS else "waits"
    return blame(scene, process, name, f"{says}; only its Python stacks would show at which line",
                 fix=_FIX)  # fmt: skip
