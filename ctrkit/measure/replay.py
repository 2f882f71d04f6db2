"""Replay of how a loader delivers batches: what a combination of loader and step would take.

A pure function over service and consumer times. The recurrence is that of torch's
`_MultiProcessingDataLoaderIter` (`_reset`, `_try_put_index`, `_next_data`); see DESIGN section 6.
Not covered: iterable data sets, `in_order=False`, and workers slowed by one another (a service time
must have been measured under the same contention; `cpu_floor_s` bounds what cores allow).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

#: Batches that the `thread` loader's queue holds.
THREAD_QUEUE = 2


@dataclass(frozen=True)
class Delivery:
    """One epoch: when each batch was delivered and how long the consumer blocked for it.

    Seconds; `delivered_s` counts from the moment the epoch's iterator exists, `total_s` is the end
    of the last step.
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
) -> Delivery:
    """Deliver a batch per entry to a consumer that takes `consumer_s[i]` over batch i.

    Args:
        service_s: seconds that a worker (or, without workers, the consumer) takes over each batch.
        consumer_s: seconds of each step, the waiting left out; as many as `service_s`.
        workers: 0 is sequential. Worker i % workers makes batch i.
        prefetch: batches in flight per worker.
        ready_s: when the workers can begin; one number for all, or one for each.
        overhead_s: what the consumer pays to take a message from the queue. It takes them as they
            arrived, so a batch taken early, while it waited for another, costs nothing more.

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
    count, in_flight = len(service_s), workers * prefetch
    finished = [0.0] * count
    taken = [False] * count
    queue: list[tuple[float, int]] = []

    def dispatch(i: int, at_s: float) -> None:
        free_s = finished[i - workers] if i >= workers else ready[i]
        finished[i] = max(at_s, free_s) + service_s[i]
        heappush(queue, (finished[i], i))

    for i in range(min(in_flight, count)):
        dispatch(i, 0.0)
    delivered, waits, now = [], [], 0.0
    for i in range(count):
        asked = now
        while not taken[i]:
            arrived_s, j = heappop(queue)
            now = max(now, arrived_s) + overhead_s
            taken[j] = True
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

    The thread makes one batch more than the queue holds before it blocks, and goes on when a batch
    is taken: that is exactly a single worker with `queue + 1` batches in flight.
    """
    return replay(service_s, consumer_s, workers=1, prefetch=queue + 1)


def steady_step_s(
    service_s: float, consumer_s: Sequence[float], *, workers: int, prefetch: int
) -> float:
    """Mean seconds of a step once the pre-filled batches are used up.

    `consumer_s` are measured steps, replayed in their order over and over.
    """
    if not consumer_s:
        raise ValueError("no consumer times to replay")
    cycles = max(2, -(-4 * max(1, workers) * prefetch // len(consumer_s)) * 2)
    steps = list(consumer_s) * cycles
    delivery = replay([service_s] * len(steps), steps, workers=workers, prefetch=prefetch)
    half = len(consumer_s) * (cycles // 2)
    begin = delivery.delivered_s[half - 1] + steps[half - 1]
    return (delivery.total_s - begin) / (len(steps) - half)


def cpu_floor_s(step_cpu_s: float, fetch_cpu_s: float, effective_cores: float) -> float:
    """Least seconds of a step on device `cpu`, where loader and step share the cores (DESIGN 6)."""
    return (step_cpu_s + fetch_cpu_s) / effective_cores
