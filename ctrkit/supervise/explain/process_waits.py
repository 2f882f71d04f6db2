"""Why a process waits for another one through `multiprocessing`: a queue or an event.

These calls take internal locks that all processes share, so neither a fork nor another thread is to
blame for the wait.
"""

from __future__ import annotations

from ctrkit.supervise.explain.scene import Process, Scene
from ctrkit.supervise.explain.sentences import Cause, blame
from ctrkit.supervise.explain.stacks import Frame, is_users

_QUEUES, _SIGNALS = "multiprocessing/queues.py", "multiprocessing/synchronize.py"
_INSIDE = ("multiprocessing/", "/threading.py", "/selectors.py")
_EMPTY = (
    "waits for an item of a multiprocessing queue, and none comes: the queue is empty, or a "
    "process was killed while it took one"
)
_FULL = "waits for room in a multiprocessing queue that is full, and nobody takes anything out"
_NO_SIGNAL = (
    "waits for a signal of multiprocessing (an event, a condition or a barrier) that no process "
    "gives"
)


def queue_or_signal(scene: Scene, process: Process) -> Cause | None:
    """User code called `get` or `put` of such a queue, or `wait` of an event and the like."""
    called = _called(process)
    if any(frame.is_in(_QUEUES, "get") for frame in called):
        return blame(scene, process, "empty queue", _EMPTY,
                     fix="see why nothing is put into the queue any more, and give `get` a "
                     "timeout")  # fmt: skip
    if any(frame.is_in(_QUEUES, "put") for frame in called):
        return blame(scene, process, "full queue", _FULL,
                     fix="see why nothing is taken out any more, and give `put` a timeout",
                     )  # fmt: skip
    if any(frame.is_in(_SIGNALS, "wait", "wait_for") for frame in called):
        return blame(scene, process, "missing signal", _NO_SIGNAL,
                     fix="see which process should give it, and give `wait` a timeout")  # fmt: skip
    return None


def _called(process: Process) -> tuple[Frame, ...]:
    """The frames of multiprocessing that user code called; empty if torch called them.

    An idle DataLoader worker waits in a queue of torch's own, which is no hang.
    """
    for number, frame in enumerate(process.stack):
        if any(part in frame.file for part in _INSIDE):
            continue
        return process.stack[:number] if is_users(frame) else ()
    return ()
