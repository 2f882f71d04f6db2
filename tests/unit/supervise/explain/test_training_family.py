"""From any pid of a training to the process that trains."""

from __future__ import annotations

import pytest

from ctrkit.core.errors import UsageError
from ctrkit.supervise.explain.training_family import Listed, find_training


def tree(*processes: Listed) -> dict[int, Listed]:
    return {one.pid: one for one in processes}


def python(pid: int, parent: int, words: str, torch: bool = True, **more: object) -> Listed:
    return Listed(
        pid=pid, parent_pid=parent, name="python", command=tuple(words.split()), python=True,
        has_torch=torch, **more,  # type: ignore[arg-type]
    )  # fmt: skip


SHELL = Listed(pid=10, parent_pid=1, name="bash", command=("bash", "job.sh"))
MAIN = python(20, 10, "python train.py")
FORKED = python(21, 20, "python train.py")
SPAWNED = python(22, 20, "python -c from multiprocessing.spawn import x --multiprocessing-fork")
TRACKER = python(23, 20, "python -c from multiprocessing.resource_tracker import main", torch=False)
ALONE = tree(SHELL, MAIN, FORKED, SPAWNED, TRACKER)


@pytest.mark.parametrize("pid", [20, 21, 22, 23])
def test_what_multiprocessing_started_leads_to_the_main_process(pid: int) -> None:
    found = find_training(pid, ALONE)
    assert (found.top_pid, found.main_pid) == (20, 20)
    assert (found.note == "") == (pid == 20)


def test_a_shell_leads_to_the_python_below_it() -> None:
    found = find_training(10, ALONE)
    assert (found.top_pid, found.main_pid) == (10, 20)
    assert "bash" in found.note


def test_ranks_are_told_by_their_launcher_and_leave_their_workers_out() -> None:
    launcher = python(30, 10, "python /usr/bin/torchrun --nproc 2 train.py")
    ranks = [python(31 + rank, 30, "python -u train.py", rank=rank) for rank in (0, 1)]
    worker = python(40, 31, "python -u train.py", rank=0)  # it has its parent's environment
    found = find_training(30, tree(SHELL, launcher, *ranks, worker))
    assert found.ranks == {31: 0, 32: 1}
    assert found.main_pid == 31
    assert find_training(10, tree(SHELL, launcher, *ranks, worker)).ranks == {31: 0, 32: 1}


def test_a_launcher_of_one_process_and_a_wrapper_without_torch_are_passed() -> None:
    launcher = python(30, 10, "python /usr/bin/accelerate launch train.py")
    child = python(31, 30, "python train.py")
    assert find_training(30, tree(SHELL, launcher, child)).main_pid == 31
    wrapper = python(30, 10, "python sweep.py", torch=False)
    assert find_training(30, tree(SHELL, wrapper, child)).main_pid == 31


def test_a_training_that_started_a_program_is_the_training_itself() -> None:
    child = python(31, 20, "python upload.py", torch=False)
    assert find_training(20, tree(SHELL, MAIN, child)).main_pid == 20


def test_libraries_helpers_do_not_train() -> None:
    wandb = python(31, 10, "python -m wandb.sdk.internal", torch=False)
    assert find_training(10, tree(SHELL, MAIN, wandb)).main_pid == 20


def test_of_several_the_one_with_torch_is_meant_and_else_the_user_is_asked() -> None:
    other = python(31, 10, "python server.py", torch=False)
    assert find_training(10, tree(SHELL, MAIN, other)).main_pid == 20
    second = python(32, 10, "python train2.py")
    with pytest.raises(UsageError, match=r"2 Python processes.*20 \(python\), 32 \(python\)"):
        find_training(10, tree(SHELL, MAIN, other, second))


def test_no_python_at_all() -> None:
    found = find_training(10, tree(SHELL))
    assert (found.top_pid, found.main_pid) == (10, 10)
