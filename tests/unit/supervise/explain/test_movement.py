"""What two looks at a process from outside show."""

from __future__ import annotations

import psutil

from ctrkit.supervise.explain.movement import Look, State, judge_movement, phase_of
from ctrkit.supervise.explain.scene import Process
from ctrkit.supervise.explain.stacks import Frame, Thread

TORCH = "/v/lib/python3.11/site-packages/torch"
MAIN = Frame("/u/train.py", 20, "main")
IN_LOADER: Thread = (Frame(f"{TORCH}/utils/data/dataloader.py", 725, "__next__"), MAIN)
IN_BACKWARD: Thread = (Frame(f"{TORCH}/autograd/graph.py", 800, "_engine"), MAIN)
# a model that is used to make a batch is still the loader's
IN_DATASET: Thread = (Frame(f"{TORCH}/nn/modules/module.py", 1, "_call_impl"), *IN_LOADER)
WORKER = Process(pid=2)


def look(
    taken_s: float,
    *,
    stack: Thread = (),
    cpu_s: float = 0.0,
    read: int = 0,
    workers: tuple[Process, ...] = (WORKER,),
    status: str = psutil.STATUS_SLEEPING,
) -> Look:
    main = Process(pid=1, threads=(stack,) if stack else (), status=status)
    return Look(taken_s=taken_s, main=main, workers=workers, cpu_s=cpu_s, read_bytes={1: read})


def state(first: Look, last: Look, *between: Thread) -> State:
    return judge_movement(first, last, between).state


def test_batches_that_come_are_progress_even_if_all_sleep() -> None:
    assert state(look(0), look(10, read=700)) is State.PROGRESSING


def test_without_workers_only_much_data_is() -> None:
    assert state(look(0, workers=()), look(10, read=700, workers=())) is State.WAITING
    assert state(look(0, workers=()), look(10, read=10**6, workers=())) is State.PROGRESSING


def test_two_phases_of_a_step_are_progress() -> None:
    there, then = look(0, stack=IN_LOADER), look(10, stack=IN_LOADER, cpu_s=10)
    assert state(there, then, IN_BACKWARD) is State.PROGRESSING
    assert state(there, then, IN_DATASET) is State.BURNING
    assert phase_of(IN_DATASET) == "the loader"


def test_no_proof_is_burning_or_waiting() -> None:
    assert state(look(0), look(10, cpu_s=9.0)) is State.BURNING
    assert state(look(0), look(10, cpu_s=0.1)) is State.WAITING


def test_a_stopped_process() -> None:
    halted = Process(pid=2, status=psutil.STATUS_STOPPED)
    assert state(look(0), look(10, workers=(halted,))) is State.STOPPED
    assert state(look(0), look(10, read=700, workers=(halted,))) is State.PROGRESSING
    assert state(look(0), look(10, read=700, status=psutil.STATUS_STOPPED)) is State.STOPPED
