from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from ctrkit.ctr.data.prefetch import CALM, THREAD_NAME, Pace, prefetch


def loader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == THREAD_NAME]


@pytest.fixture(autouse=True)
def _no_thread_stays_behind() -> Iterator[None]:
    yield
    assert loader_threads() == []


def test_a_consumer_that_waits_gets_depth() -> None:
    pace = Pace(depth=2, least_depth=2, most_depth=5)
    depths = []
    for _ in range(5):
        pace.taken(waited=True)
        depths.append(pace.depth)
    assert depths == [3, 4, 5, 5, 5]


def test_a_consumer_that_never_waits_gets_its_memory_back() -> None:
    pace = Pace(depth=5, least_depth=2, most_depth=5)
    for _ in range(CALM):
        assert pace.depth == 5
        pace.taken(waited=False)
    assert pace.depth == 4
    for _ in range(10 * CALM):
        pace.taken(waited=False)
    assert pace.depth == 2


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_results_come_in_order_whoever_makes_them(threads: int) -> None:
    def make_worker() -> Callable[[int], int]:
        def work(number: int) -> int:
            time.sleep(0.002 * (number % 3))
            return number * number

        return work

    pace = Pace(depth=3, threads=threads)
    assert list(prefetch(make_worker, 40, pace)) == [n * n for n in range(40)]
    assert list(prefetch(make_worker, 0, pace)) == []


def test_no_more_is_made_than_the_depth_allows() -> None:
    made = []
    results = prefetch(lambda: made.append, 100, Pace(depth=3, least_depth=3, most_depth=3))
    next(results)
    time.sleep(0.2)
    assert sorted(made) == [0, 1, 2, 3]
    results.close()


def test_an_error_comes_in_its_place() -> None:
    def work(number: int) -> int:
        if number == 3:
            raise OSError("the disk is gone")
        return number

    results = prefetch(lambda: work, 10, Pace(depth=8, threads=2))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="the disk is gone"):
        next(results)


def test_an_error_while_a_worker_is_made() -> None:
    def make_worker() -> Callable[[int], int]:
        raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"):
        list(prefetch(make_worker, 3, Pace()))


def test_threads_that_ended_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctrkit.ctr.data.prefetch._work", lambda *_: None)
    with pytest.raises(RuntimeError, match="ended without a word"):
        next(prefetch(lambda: int, 3, Pace()))


def test_an_interrupt_in_the_consumer_ends_the_threads() -> None:
    with pytest.raises(KeyboardInterrupt):
        for number in prefetch(lambda: int, 1000, Pace(threads=2)):
            if number == 5:
                assert len(loader_threads()) == 2
                raise KeyboardInterrupt
