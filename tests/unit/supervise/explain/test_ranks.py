"""Which rank is late, what belongs to it, and who holds the GIL."""

from __future__ import annotations

from ctrkit.supervise.explain.scene import Process, Scene, Wait, late_rank, narrowed
from ctrkit.supervise.explain.stacks import Frame

TORCH = "/v/lib/python3.11/site-packages/torch"
WAITS = (Frame(f"{TORCH}/autograd/graph.py", 9, "_engine"), Frame("/u/t.py", 3, "main"))
READS = (Frame("/u/rows.py", 7, "__getitem__"), Frame("/u/t.py", 2, "main"))


def rank(pid: int, stack: tuple[Frame, ...]) -> Process:
    return Process(pid=pid, parent_pid=1, threads=(stack,))


def test_the_late_rank_is_the_one_that_does_not_wait_for_the_others() -> None:
    ranks = {11: 0, 12: 1, 13: 2}
    seen = [rank(11, WAITS), rank(12, READS), rank(13, WAITS)]
    assert late_rank(seen, ranks) == 12
    assert late_rank([rank(11, WAITS), rank(12, WAITS)], ranks) is None
    assert late_rank([rank(11, READS), rank(12, READS)], ranks) is None
    assert late_rank(seen, {}) is None


def test_a_scene_is_narrowed_to_the_late_rank_and_its_workers() -> None:
    launcher, worker = Process(pid=1, parent_pid=0), Process(pid=22, parent_pid=12)
    processes = (launcher, rank(11, WAITS), rank(12, READS), worker)
    scene = narrowed(Scene(root_pid=11, processes=processes, ranks={11: 0, 12: 1}))
    assert scene.root_pid == 12
    assert [one.pid for one in scene.processes] == [12, 22]
    assert scene.main_name == "rank 1 (pid 12)"


def test_only_a_thread_that_waits_in_a_futex_can_wait_for_the_gil() -> None:
    own = Wait(thread=5, syscall="clock_nanosleep", wakes_per_s=10)

    def holds(call: str) -> bool:
        other = Wait(thread=6, syscall=call, wakes_per_s=190)
        return Process(pid=5, waits=(own, other)).holds_gil

    assert holds("futex")
    assert not holds("epoll_wait")


def test_a_thread_that_python_does_not_know_cannot_wait_for_the_gil() -> None:
    waits = (
        Wait(thread=5, syscall="clock_nanosleep", wakes_per_s=10),
        Wait(thread=6, syscall="futex", wakes_per_s=190),
    )
    main, other = (Frame("/home/me/train.py", 5, "step"),), (Frame("/home/me/log.py", 7, "send"),)
    assert Process(pid=5, waits=waits, threads=(other, main)).holds_gil
    assert not Process(pid=5, waits=waits, threads=(main,)).holds_gil
