"""Whether a training that reports nothing makes progress, from two looks from outside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from ctrkit.core.units import format_bytes, format_duration
from ctrkit.supervise.explain.scene import BURNING_CORES, Process
from ctrkit.supervise.explain.stacks import Thread

# More bytes than a loop reads that only checks for a file again and again.
_DATA_BYTES = 64_000
# Phases of a step, by the outermost call of torch.
_PHASES = (
    ("torch/utils/data/", "the loader"), ("torch/autograd/", "backward"),
    ("torch/_tensor.py", "backward"), ("torch/optim/", "the optimizer"),
    ("torch/nn/modules/", "forward"), ("torch/serialization.py", "saving"),
)  # fmt: skip


class State(StrEnum):
    """What two looks at a process show."""

    PROGRESSING = "progressing"
    WAITING = "waiting"
    BURNING = "burning"
    STOPPED = "stopped"


@dataclass(frozen=True, kw_only=True)
class Look:
    """One look at the training processes.

    Args:
        taken_s: monotonic time.
        main: the training process.
        workers: the processes that read for it.
        cpu_s: CPU seconds of all of them so far, or those they would have used on free cores.
        read_bytes: bytes that each one's main thread and pinning thread have read so far.
    """

    taken_s: float
    main: Process
    workers: Sequence[Process] = ()
    cpu_s: float = 0.0
    read_bytes: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Movement:
    """The state, and a sentence on what it is based on."""

    state: State
    because: str


def judge_movement(first: Look, last: Look, between: Iterable[Thread] = ()) -> Movement:
    """Judge the time between two looks.

    Progress needs proof: batches arrived from workers, data was read, or a step was seen in two of
    its phases. Without proof, a loop that uses CPU may or may not end.

    Args:
        first: the first look.
        last: the second look.
        between: stacks of the main thread read in between.
    """
    gap_s = max(last.taken_s - first.taken_s, 1e-3)
    during = f"in {format_duration(gap_s)}"
    if last.main.is_stopped:
        return Movement(state=State.STOPPED, because="the process that trains is stopped")
    if proof := _proof(first, last, [first.main.stack, *between, last.main.stack]):
        return Movement(state=State.PROGRESSING, because=f"{during} {proof}")
    halted = [one for one in last.workers if one.is_stopped]
    if halted:
        return Movement(state=State.STOPPED, because=f"worker {halted[0].pid} is stopped")
    cores = max(0.0, last.cpu_s - first.cpu_s) / gap_s
    if cores >= BURNING_CORES:
        return Movement(
            state=State.BURNING,
            because=f"{during} it used {cores:.1f} cores, and nothing shows that it made "
            f"progress; ctrkit cannot tell from outside whether this ends",
        )
    return Movement(
        state=State.WAITING,
        because=f"{during} nothing moved, and it burned {cores:.2f} cores",
    )


def _proof(first: Look, last: Look, stacks: Sequence[Thread]) -> str:
    """The proof of progress; empty if there is none."""
    came = _grown(first, last, last.main.pid)
    if last.workers and came > 0:
        return f"the main process received {format_bytes(came)} from its workers"
    if came > _DATA_BYTES:
        return f"the main process read {format_bytes(came)} of data"
    for worker in last.workers:
        if (read := _grown(first, last, worker.pid)) > _DATA_BYTES:
            return f"worker {worker.pid} read {format_bytes(read)} of data"
    phases = list(dict.fromkeys(filter(None, map(phase_of, stacks))))
    if len(phases) > 1:
        return f"the main process was seen in {' and in '.join(phases[:3])}"
    return ""


def _grown(first: Look, last: Look, pid: int) -> int:
    if pid not in first.read_bytes or pid not in last.read_bytes:
        return 0
    return last.read_bytes[pid] - first.read_bytes[pid]


def phase_of(stack: Thread) -> str:
    """The phase of a step that the stack is in; empty if unknown."""
    for frame in reversed(stack):
        for part, phase in _PHASES:
            if f"/{part}" in frame.file:
                return phase
    return ""
