"""Does work ahead in threads and hands it over in order, as far ahead as the consumer needs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

Result = TypeVar("Result")

THREAD_NAME = "ctrkit-loader"
#: results that were ready in time, one after the other, before the depth goes down by one
CALM = 64
_POLL_S = 0.1
_JOIN_S = 30.0


@dataclass
class Pace:
    """How far ahead to work, from whether the consumer had to wait.

    A consumer that waits is short of results: go further ahead. One that never waits gets memory
    back. The threads stay as many as they are: a second one that gathers was measured to be slower.
    """

    depth: int = 2
    most_depth: int = 2
    least_depth: int = 2
    threads: int = 1
    calm: int = 0

    def taken(self, *, waited: bool) -> None:
        """The consumer took a result, and had to wait for it or not."""
        if waited:
            self.calm = 0
            self.depth = min(self.most_depth, self.depth + 1)
        else:
            self.calm += 1
            if self.calm >= CALM:
                self.depth, self.calm = max(self.least_depth, self.depth - 1), 0


class _Failure:
    """An exception on its way from a thread to the consumer."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


class _Line(Generic[Result]):
    """Numbered results between the threads that make them and the consumer that takes them."""

    def __init__(self, count: int, pace: Pace) -> None:
        self.count, self.pace = count, pace
        self.changed = threading.Condition()
        self.ready: dict[int, Result | _Failure] = {}
        self.claimed = self.taken = 0
        self.stopped = False

    def claim(self) -> int | None:
        """The number of the next result to make, once there is room; None when there is none."""
        with self.changed:
            # a consumer that dies holding its iterator never says stop, but the main thread ends
            while not self.stopped and threading.main_thread().is_alive():
                if self.claimed >= self.count:
                    return None
                if self.claimed - self.taken < self.pace.depth:
                    self.claimed += 1
                    return self.claimed - 1
                self.changed.wait(_POLL_S)
        return None

    def put(self, number: int, result: Result | _Failure) -> None:
        with self.changed:
            self.ready[number] = result
            self.changed.notify_all()

    def take(self, threads: list[threading.Thread]) -> Result | _Failure:
        """The next result, waited for as long as there is a thread that may bring it."""
        with self.changed:
            waited = self.taken not in self.ready
            while self.taken not in self.ready:
                if not any(thread.is_alive() for thread in threads):
                    raise RuntimeError("the loader's thread ended without a word")
                self.changed.wait(_POLL_S)
            result = self.ready.pop(self.taken)
            self.taken += 1
            # the first is waited for whatever the pace is
            self.pace.taken(waited=waited and self.taken > 1)
            self.changed.notify_all()
        return result

    def stop(self) -> None:
        with self.changed:
            self.stopped = True
            self.changed.notify_all()


def prefetch(
    make_worker: Callable[[], Callable[[int], Result]], count: int, pace: Pace
) -> Iterator[Result]:
    """The results 0 .. count - 1 of a function, in order, made ahead by threads.

    The threads end with the generator: at its end, when it is closed, and after an exception, which
    the consumer gets in place of the result.

    Args:
        make_worker: called once in each thread; gives the function that makes a result.
        count: how many results there are.
        pace: how far ahead, and with how many threads.
    """
    line: _Line[Result] = _Line(count, pace)
    threads: list[threading.Thread] = []
    try:
        for _ in range(pace.threads if count else 0):
            thread = threading.Thread(target=_work, args=(line, make_worker), name=THREAD_NAME)
            threads.append(thread)
            thread.start()
        for _ in range(count):
            result = line.take(threads)
            if isinstance(result, _Failure):
                raise result.error
            yield result
            del result  # the consumer may be done with it before the next is asked for
    finally:
        line.stop()
        for thread in threads:
            if thread.ident is not None:
                thread.join(_JOIN_S)


def _work(line: _Line[Result], make_worker: Callable[[], Callable[[int], Result]]) -> None:
    """Body of a thread: make results as long as there is room and somebody wants them."""
    work: Callable[[int], Result] | None = None
    while (number := line.claim()) is not None:
        result: Result | _Failure
        try:
            work = work or make_worker()
            result = work(number)
        except BaseException as error:
            result = _Failure(error)
        line.put(number, result)
        del result
