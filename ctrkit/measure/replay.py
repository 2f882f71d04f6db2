"""Replays how a loader delivers batches, to predict a combination of loader and step.

A pure function of service and consumer times. The recurrence is that of torch's
`_MultiProcessingDataLoaderIter` (`_reset`, `_try_put_index`, `_next_data`, and `_pin_memory_loop`).
Not covered: iterable data sets and `in_order=False`. A service time is valid for the number of
workers with which it was measured; `fit_contention` gives it for others, and `cpu_floor_s` bounds
what the cores allow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

#: Capacity of the `thread` loader's queue, in batches.
THREAD_QUEUE = 2


@dataclass(frozen=True)
class Delivery:
    """One epoch: when each batch was delivered, and how long the consumer waited for it.

    Times in seconds; `delivered_s` counts from the moment when the epoch's iterator exists, and
    `total_s` is the end of the last step.
    """

    delivered_s: list[float]
    wait_s: list[float]
    total_s: float


def replay(
    service_s: Sequence[float],
    consumer_s: Sequence[float],
    *,
    workers: int,
    prefetch: int = 2,
    ready_s: float | Sequence[float] = 0.0,
    overhead_s: float = 0.0,
    pinned: bool = False,
) -> Delivery:
    """Deliver one batch per entry to a consumer that takes `consumer_s[i]` for batch i.

    Args:
        service_s: seconds that a worker (or, without workers, the consumer) takes to make each
            batch.
        consumer_s: seconds of each step without waiting; as many as `service_s`.
        workers: 0 is sequential. Worker i % workers makes batch i.
        prefetch: batches in flight per worker.
        ready_s: when the workers can begin; one number for all, or one for each.
        overhead_s: time that the consumer needs to take a message from the queue. It takes messages
            in order of arrival, so a batch taken early, while it waited for another one, costs
            nothing more later.
        pinned: a thread of the main process takes the messages as they arrive, while the consumer
            makes its steps; the consumer only pays for waiting.

    Raises:
        ValueError: unequal lengths, or counts out of range.
    """
    if len(service_s) != len(consumer_s):
        raise ValueError(f"{len(service_s)} service times for {len(consumer_s)} consumer times")
    if workers < 0 or (workers > 0 and prefetch < 1):
        raise ValueError(f"workers {workers}, prefetch {prefetch}: out of range")
    if workers == 0:
        return _sequential(service_s, consumer_s)
    ready = [float(ready_s)] * workers if isinstance(ready_s, (int, float)) else list(ready_s)
    if len(ready) != workers:
        raise ValueError(f"{len(ready)} ready times for {workers} workers")
    return _parallel(service_s, consumer_s, ready, workers * prefetch, overhead_s, pinned)


def _parallel(
    service_s: Sequence[float],
    consumer_s: Sequence[float],
    ready_s: Sequence[float],
    in_flight: int,
    overhead_s: float,
    pinned: bool,
) -> Delivery:
    count, workers = len(service_s), len(ready_s)
    finished = [0.0] * count
    taken_s: list[float | None] = [None] * count
    queue: list[tuple[float, int]] = []

    def dispatch(i: int, at_s: float) -> None:
        free_s = finished[i - workers] if i >= workers else ready_s[i]
        finished[i] = max(at_s, free_s) + service_s[i]
        heappush(queue, (finished[i], i))

    for i in range(min(in_flight, count)):
        dispatch(i, 0.0)
    delivered, waits, now, thread_s = [], [], 0.0, 0.0
    for i in range(count):
        asked = now
        # messages are taken in order of arrival; nothing sent later can arrive before this one
        while taken_s[i] is None:
            arrived_s, j = heappop(queue)
            thread_s = max(thread_s if pinned else now, arrived_s) + overhead_s
            taken_s[j] = thread_s
            now = now if pinned else thread_s
        now = max(now, taken_s[i] or 0.0)
        if i + in_flight < count:
            dispatch(i + in_flight, now)
        delivered.append(now)
        waits.append(now - asked)
        now += consumer_s[i]
    return Delivery(delivered, waits, now)


def _sequential(service_s: Sequence[float], consumer_s: Sequence[float]) -> Delivery:
    delivered, now = [], 0.0
    for service, consumer in zip(service_s, consumer_s, strict=True):
        now += service
        delivered.append(now)
        now += consumer
    return Delivery(delivered, list(service_s), now)


def replay_thread(
    service_s: Sequence[float], consumer_s: Sequence[float], *, queue: int = THREAD_QUEUE
) -> Delivery:
    """One background thread and a bounded queue of `queue` batches.

    The thread makes one batch more than the queue holds before it blocks, and continues when a
    batch is taken. That is exactly a single worker with `queue + 1` batches in flight.
    """
    return replay(service_s, consumer_s, workers=1, prefetch=queue + 1)


def steady_step_s(
    service_s: float,
    consumer_s: Sequence[float],
    *,
    workers: int,
    prefetch: int,
    overhead_s: float = 0.0,
    pinned: bool = False,
) -> float:
    """Mean seconds of a step after the pre-filled batches have been used up.

    `consumer_s` are measured steps, repeated in order; for the other arguments see `replay`.
    """
    if not consumer_s:
        raise ValueError("no consumer times to replay")
    cycles = max(2, -(-4 * max(1, workers) * prefetch // len(consumer_s)) * 2)
    steps = list(consumer_s) * cycles
    delivery = replay(
        [service_s] * len(steps), steps, workers=workers, prefetch=prefetch,
        overhead_s=overhead_s if workers else 0.0, pinned=pinned,
    )  # fmt: skip
    half = len(consumer_s) * (cycles // 2)
    begin = delivery.delivered_s[half - 1] + steps[half - 1]
    return (delivery.total_s - begin) / (len(steps) - half)


def cpu_floor_s(step_cpu_s: float, fetch_cpu_s: float, effective_cores: float) -> float:
    """Least seconds of a step on device `cpu`, where loader and step share the cores."""
    return (step_cpu_s + fetch_cpu_s) / effective_cores


@dataclass(frozen=True, kw_only=True)
class Contention:
    """How long a worker takes for a batch when several work.

    `waiting_s` of it uses no processor and stays the same; `cpu_s` grows in proportion once there
    are more workers than `cores`.
    """

    waiting_s: float
    cpu_s: float
    cores: float

    def service_s(self, workers: int) -> float:
        """Seconds per batch of each worker, if there are so many."""
        return self.waiting_s + self.cpu_s * max(1.0, workers / self.cores)


def fit_contention(
    fewer: tuple[int, float], more: tuple[int, float], cores: float, cpu_s: float | None = None
) -> Contention:
    """The contention that explains service times measured with two numbers of workers.

    Args:
        fewer: number of workers, and seconds per batch of each.
        more: the same with more workers.
        cores: cores that the workers can use.
        cpu_s: processor seconds per batch, for the case that neither number exceeds the cores,
            which says nothing about crowding. If None, the whole service counts as processor time,
            so that workers beyond the cores are not promised to help.

    Raises:
        ValueError: no cores, no time, or not more workers.
    """
    (few, few_s), (many, many_s) = fewer, more
    if cores <= 0 or few < 1 or many <= few or few_s <= 0 or many_s <= 0:
        raise ValueError(f"cannot fit contention to {fewer}, {more} on {cores} cores")
    crowd, crowd_more = max(1.0, few / cores), max(1.0, many / cores)
    if math.isclose(crowd, crowd_more, rel_tol=1e-6):  # a smaller difference is rounding
        alone_s = (few_s + many_s) / 2
        burnt_s = alone_s if cpu_s is None else min(cpu_s, alone_s)
        return Contention(waiting_s=alone_s - burnt_s, cpu_s=burnt_s, cores=cores)
    burnt_s = (many_s - few_s) / (crowd_more - crowd)
    if burnt_s <= 0:  # each of more workers was no slower: noise, or only waiting
        return Contention(waiting_s=(few_s + many_s) / 2, cpu_s=0.0, cores=cores)
    waiting_s = few_s - burnt_s * crowd
    # steeper than sharing explains, and both crowded: take all for processor time
    if waiting_s + burnt_s <= 0:
        burnt_s, waiting_s = (few_s / crowd + many_s / crowd_more) / 2, 0.0
    return Contention(waiting_s=waiting_s, cpu_s=burnt_s, cores=cores)


@dataclass(frozen=True, kw_only=True, eq=False)
class Load:
    """The measured batches of one launch: what replay needs to deliver them again.

    Seconds per batch in order of delivery; `consumer_s` excludes waiting. The two lists may differ
    in length. The first `first_batches` entries of `service_s`, each worker's first batch, do not
    represent the others.
    """

    service_s: Sequence[float]
    consumer_s: Sequence[float]
    workers: int
    prefetch: int = 2
    ready_s: float | Sequence[float] = 0.0
    overhead_s: float = 0.0
    pinned: bool = False
    first_batches: int = 0


def replay_epoch(
    load: Load,
    batches: int,
    *,
    first_steps: int = 1,
    service_x: float = 1.0,
    consumer_x: float = 1.0,
) -> Delivery:
    """Deliver an epoch of `batches` from the shorter stretch that was measured.

    The first steps and first batches (the very first may be slow) are used once, the others
    repeatedly in order. `service_x` and `consumer_x` scale the two, to learn what each is worth.

    Raises:
        ValueError: nothing was measured.
    """
    if not load.service_s or not load.consumer_s:
        raise ValueError("no batches to replay")
    return replay(
        [s * service_x for s in _over_and_over(load.service_s, batches, load.first_batches)],
        [c * consumer_x for c in _over_and_over(load.consumer_s, batches, first_steps)],
        workers=load.workers,
        prefetch=load.prefetch,
        ready_s=load.ready_s,
        overhead_s=load.overhead_s if load.workers else 0.0,
        pinned=load.pinned,
    )


def _over_and_over(values: Sequence[float], count: int, once: int) -> list[float]:
    """The first `once` values, and then the others repeatedly, `count` in all."""
    head, rest = list(values[:once]), list(values[once:]) or list(values)
    cycles = -(-max(0, count - len(head)) // len(rest))
    return (head + rest * cycles)[:count]


def message_overhead_s(
    asked_s: Sequence[float], delivered_s: Sequence[float], made_s: Sequence[float]
) -> float:
    """Mean seconds that the consumer needs to take a message, from the stamps of each batch.

    It uses batches that were finished before the previous step began, so that the consumer did not
    wait for them: their delivery took the time to take messages, including those that came early. 0
    if there are no such batches.
    """
    paid = [
        delivered_s[i] - asked_s[i]
        for i in range(1, len(asked_s))
        if made_s[i] <= delivered_s[i - 1]
    ]
    return sum(paid) / len(paid) if paid else 0.0
