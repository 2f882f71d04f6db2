"""Reads the load of a launch from the stamps of its batches, as replay needs it."""

from __future__ import annotations

from collections.abc import Sequence

from ctrkit.core.child_records import Measurement, Stamps
from ctrkit.core.config import Cell
from ctrkit.measure.replay import THREAD_QUEUE, Load, message_overhead_s, replay
from ctrkit.measure.step_ends import by_device, ends_s, seconds_between

#: A replay of the measured batches must come this close to their measured time.
_FAITHFUL = 0.05


def load_of(measurement: Measurement, cell: Cell) -> Load | None:
    """The first epoch's batches of a launch; None if replay cannot model them.

    That is: without workers and threads (the mean of steps says everything); without stamps; if
    batches came out of turn, or too few came; and if replay does not even reproduce what was
    measured.
    """
    stamps = measurement.stamps
    count = _first_steps(stamps)
    workers = 1 if cell.loader == "thread" else cell.workers
    throughput = [i for i in range(count) if stamps.window[i] == "throughput"]
    enough = workers and throughput and count >= max(2 * workers, workers + 2)
    if not enough or not _in_turn(stamps, count, cell):
        return None
    made_s = [s if s is not None else 0.0 for s in stamps.sent_s[:count]]
    start_s = [s if s is not None else 0.0 for s in stamps.fetch_start_s[:count]]
    consumer_s = _consumer_s(measurement, count)
    load = Load(
        service_s=_service_s(start_s, made_s, workers),
        consumer_s=[
            _usual_first_s(measurement, consumer_s, throughput),
            *(consumer_s[i] for i in throughput if i > 0),
        ],
        workers=workers,
        prefetch=THREAD_QUEUE + 1 if cell.loader == "thread" else cell.prefetch or 1,
        ready_s=[max(0.0, start_s[w] - stamps.asked_s[0]) for w in range(workers)],
        overhead_s=message_overhead_s(stamps.asked_s[:count], stamps.delivered_s[:count], made_s),
        pinned=cell.pin,
        first_batches=workers,
    )
    ended_s = stamps.done_s[count - 1] + _left_on_device_s(measurement, throughput)
    took_s = ended_s - stamps.delivered_s[0]
    return load if _tells(load, consumer_s, took_s) else None


def _usual_first_s(
    measurement: Measurement, consumer_s: Sequence[float], throughput: Sequence[int]
) -> float:
    """Seconds that the loop keeps the first batch; the run's very first may be warm-up."""
    if not measurement.warm_up_steps:
        return consumer_s[0]
    return sum(consumer_s[i] for i in throughput) / len(throughput)


def _first_steps(stamps: Stamps) -> int:
    """How many of the first steps belong to the first epoch's warm-up and throughput windows."""
    count = 0
    for epoch, step, window in zip(stamps.epoch, stamps.step, stamps.window, strict=True):
        if epoch != 1 or step != count + 1 or window not in ("warmup", "throughput"):
            break
        count += 1
    return count


def _in_turn(stamps: Stamps, count: int, cell: Cell) -> bool:
    """Whether all batches have stamps, each of the worker whose turn it was."""
    if len(stamps.sent_s) < count or None in stamps.sent_s[:count]:
        return False
    if cell.loader == "thread":
        return True
    return all(stamps.worker[i] == i % cell.workers for i in range(count))


def _service_s(start_s: Sequence[float], made_s: Sequence[float], workers: int) -> list[float]:
    """Seconds per batch of a worker that makes one after the other.

    It may pickle one batch while it makes the next; counted is the delay of the next one.
    """
    return [
        max(0.0, made_s[i] - max(start_s[i], made_s[i - workers] if i >= workers else start_s[i]))
        for i in range(len(made_s))
    ]


def _consumer_s(measurement: Measurement, count: int) -> list[float]:
    """Seconds from each batch's delivery to the request for the next one, within its window.

    If the device stamps its steps, these are its times per batch: the loop asks early, and then
    waits. Otherwise, the work left on the device at the end of the throughput window is spread over
    the window's steps.
    """
    stamps = measurement.stamps
    seconds = []
    for i in range(count):
        follows = i + 1 < count and stamps.window[i + 1] == stamps.window[i]
        end_s = stamps.asked_s[i + 1] if follows else stamps.done_s[i]
        seconds.append(end_s - stamps.delivered_s[i])
    inside = [i for i in range(count) if stamps.window[i] == "throughput"]
    if by_device(stamps):
        ends = ends_s(stamps)
        for i in inside:
            # the device began this batch when it was there, and the previous step was done
            seconds_of = seconds_between(ends, i, stamps.delivered_s[i]) if i else None
            seconds[i] = seconds[i] if seconds_of is None else max(0.0, seconds_of)
        return seconds
    later_s = _left_on_device_s(measurement, inside) / len(inside)
    for i in inside:
        seconds[i] += later_s
    return seconds


def _left_on_device_s(measurement: Measurement, inside: Sequence[int]) -> float:
    """Seconds from the throughput window's last call to the end of its work on the device."""
    stamps = measurement.stamps
    if measurement.throughput_s is None or len(inside) != measurement.throughput_steps:
        return 0.0
    stamped_s = stamps.done_s[inside[-1]] - stamps.asked_s[inside[0]]
    return max(0.0, measurement.throughput_s - stamped_s)


def _tells(load: Load, consumer_s: Sequence[float], took_s: float) -> bool:
    """Whether a replay of the measured batches takes as long as they did."""
    delivery = replay(
        load.service_s, consumer_s, workers=load.workers, prefetch=load.prefetch,
        ready_s=load.ready_s, overhead_s=load.overhead_s, pinned=load.pinned,
    )  # fmt: skip
    replayed_s = delivery.total_s - delivery.delivered_s[0]
    return abs(replayed_s - took_s) <= _FAITHFUL * took_s
