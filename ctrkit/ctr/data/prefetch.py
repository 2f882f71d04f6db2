"""Does work ahead in threads and hands it over in order, as far ahead as the consumer needs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

Result = TypeVar("Result")

THREAD_NAME = "ctrkit-loader"
#: after so many results in a row that were ready in time, the depth decreases by one
CALM = 64
_POLL_S = 0.1
_JOIN_S = 30.0


@dataclass
class Pace:
    """How far ahead to work, depending on whether the consumer had to wait.

    If the consumer waits, results are short, so the depth grows. If it never waits, memory is given
    back. The number of threads stays constant: a second gathering thread was measured to be slower.
    """

    depth: int = 2
    most_depth: int = 2
    least_depth: int = 2
    threads: int = 1
    calm: int = 0

    def taken(self, *, waited: bool) -> None:
        """Note that the consumer took a result, and whether it had to wait."""
        if waited:
            self.calm = 0
            self.depth = min(self.most_depth, self.depth + 1)
        else:
            self.calm += 1
            if self.calm >= CALM:
                self.depth, self.calm = max(self.least_depth, self.depth - 1), 0


class _Failure:
    """Carries an exception from a thread to the consumer."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


class _Line(Generic[Result]):
    """A queue of numbered results, from the threads that make them to the consumer."""

    def __init__(self, count: int, pace: Pace) -> None:
        self.count, self.pace = count, pace
        self.changed = threading.Condition()
        self.ready: dict[int, Result | _Failure] = {}
        self.claimed = self.taken = 0
        self.stopped = False

    def claim(self) -> int | None:
        """Wait for room; returns the number of the next result to make, or None if none is left."""
        with self.changed:
            # a consumer that dies with its iterator never says stop, but then the main thread ends
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
        """The next result; waits as long as some thread may bring it."""
        with self.changed:
            waited = self.taken not in self.ready
            while self.taken not in self.ready:
                if not any(thread.is_alive() for thread in threads):
                    raise RuntimeError("the loader's thread ended without a word")
                self.changed.wait(_POLL_S)
            result = self.ready.pop(self.taken)
            self.taken += 1
            # the consumer always waits for the first result, at any pace
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
    is raised in the consumer.

    Args:
        make_worker: called once in each thread; returns the function that makes a result.
        count: number of results.
        pace: how far ahead to work, and with how many threads.
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
            del result  # the consumer may drop it before it asks for the next one
    finally:
        line.stop()
        for thread in threads:
            if thread.ident is not None:
                thread.join(_JOIN_S)


def _work(line: _Line[Result], make_worker: Callable[[], Callable[[int], Result]]) -> None:
    """Body of a thread: make results as long as there is room and the consumer wants them."""
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
