"""Asks loaders for batches in turn, round after round, and compares their rates."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from loader_peers import Contender, Machine

from ctrkit.child.training.batches import RowCounter


class Running:
    """A contender that was started and is asked for batches in turns."""

    def __init__(self, contender: Contender, machine: Machine, batch_size: int) -> None:
        self.contender, self.machine, self.batch_size = contender, machine, batch_size
        self.source: Any = None
        self.iterator: Iterator[Any] | None = None
        self.rates: list[float] = []
        self.counter = RowCounter(None, batch_size)

    def start(self) -> None:
        self.source = self.contender.make(self.machine, self.batch_size)
        self.next_batch()

    def next_batch(self) -> tuple[Any, bool]:
        """The next batch, and whether an epoch had to be begun for it."""
        if self.iterator is not None:
            batch = next(self.iterator, None)
            if batch is not None:
                return batch, False
            if iter(self.source) is self.source:  # a generator is only one epoch
                self.source = self.contender.make(self.machine, self.batch_size)
        self.iterator = iter(self.source)
        return next(self.iterator), True

    def skip_ahead(self) -> None:
        ahead = max(self.contender.ahead, self.contender.ahead_rows // self.batch_size)
        for _ in range(ahead):
            self.next_batch()

    def turn(self, seconds: float) -> None:
        """Take batches for so many seconds, and note the rows per second."""
        self.skip_ahead()
        rows, spent_s = 0, 0.0
        while spent_s < seconds:
            began_s = time.perf_counter()
            batch, is_new = self.next_batch()
            took_s = time.perf_counter() - began_s
            if is_new:
                self.skip_ahead()
                continue
            spent_s += took_s
            rows += batch if isinstance(batch, int) else self.counter.count(batch) or 0
            del batch
        self.rates.append(rows / spent_s)

    def close(self) -> None:
        for owner, name in (
            (self.iterator, "_shutdown_workers"),
            (self.iterator, "close"),
            (self.source, "close"),
        ):
            with suppress(AttributeError):
                getattr(owner, name)()
        self.source = self.iterator = None


@dataclass(frozen=True)
class Compared:
    """The rates of all contenders at one batch size, by round."""

    batch_size: int
    rates: dict[str, list[float]]

    def ratio(self, name: str, to: str) -> tuple[float, float, float]:
        """The ratio of two rates within a round: its median, minimum and maximum."""
        found = [a / b for a, b in zip(self.rates[name], self.rates[to], strict=True)]
        return statistics.median(found), min(found), max(found)

    def rate(self, name: str) -> float:
        return statistics.median(self.rates[name])

    def best(self, group: Sequence[Contender], start: str = "") -> str | None:
        names = [c.name for c in group if c.name in self.rates and c.name.startswith(start)]
        return max(names, key=self.rate, default=None)


def compare(
    machine: Machine, chosen: Sequence[Contender], batch_size: int, rounds: int, seconds: float
) -> Compared:
    running = [Running(contender, machine, batch_size) for contender in chosen]
    try:
        for one in running:
            one.start()
        for _ in range(rounds):
            for one in running:
                one.turn(seconds)
    finally:
        for one in running:
            one.close()
        gc.collect()
    return Compared(batch_size, {one.contender.name: one.rates for one in running})
