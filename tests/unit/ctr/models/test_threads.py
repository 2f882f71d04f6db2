"""All items are shared out, and no thread is left."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from ctrkit.ctr.models.threads import share_out

CPU = torch.device("cpu")


@pytest.fixture
def _three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_three_threads")
def test_each_item_is_worked_on_once_by_threads_that_compute_alone() -> None:
    done: list[int] = []
    seen: set[tuple[str, int, bool]] = set()
    meet = threading.Barrier(3, timeout=60)

    def work(share: Iterator[int]) -> None:
        meet.wait()  # all three are alive at once
        seen.add(
            (threading.current_thread().name, torch.get_num_threads(), torch.is_grad_enabled())
        )
        done.extend(share)

    alive = threading.active_count()
    share_out(work, range(100), CPU)
    assert sorted(done) == list(range(100))
    assert len(seen) == 3
    assert {(threads, grad) for _, threads, grad in seen} == {(1, False)}
    assert threading.active_count() == alive
    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("_three_threads")
def test_a_later_thread_has_all_intra_op_threads() -> None:
    share_out(lambda share: list(share) and None, range(3), CPU)
    seen: list[int] = []

    def look() -> None:
        torch.ones(1).add_(1)
        seen.append(torch.get_num_threads())

    later = threading.Thread(target=look)
    later.start()
    later.join(30)
    assert seen == [3]


@pytest.mark.usefixtures("_three_threads")
def test_an_error_in_a_thread_is_raised_here_and_the_setting_restored() -> None:
    def work(share: Iterator[int]) -> None:
        for item in share:
            if item == 5:
                raise ZeroDivisionError("item 5")

    with pytest.raises(ZeroDivisionError, match="item 5"):
        share_out(work, range(10), CPU)
    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("_three_threads")
def test_an_accelerator_is_driven_from_this_thread() -> None:
    names: list[str] = []
    share_out(
        lambda share: names.extend(threading.current_thread().name for _ in share),
        range(4),
        torch.device("meta"),
    )
    assert names == [threading.current_thread().name] * 4


def test_no_items_is_no_work() -> None:
    def work(share: Iterator[int]) -> None:
        raise AssertionError("called")

    share_out(work, (), CPU)
