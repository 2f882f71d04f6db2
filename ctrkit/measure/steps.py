"""Reads step times, waits and stage means of one trial from its raw measurement."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from ctrkit.core.child_records import STAGES, Measurement, Stamps
from ctrkit.core.config import RunSizes
from ctrkit.measure.epoch_length import has_one_epoch, length_in, with_length
from ctrkit.measure.replay import Load, replay_epoch
from ctrkit.measure.samples import Sample, sample_of
from ctrkit.measure.step_ends import by_device, ends_s
from ctrkit.measure.trends import Trend, common_trend, trend_of


def step_times_s(measurement: Measurement) -> list[float]:
    """Seconds of each step of the throughput window, from the end of one to the end of the next.

    On CUDA the device says when a step ended. On MPS the host does, which runs ahead; their mean is
    then that of the window, which is synchronised at both ends (`mean_step_s`).
    """
    stamps = measurement.stamps
    ends = ends_s(stamps)
    times: list[float] = []
    for i, window in enumerate(stamps.window):
        if window == "throughput":
            follows = i > 0 and stamps.window[i - 1] == "throughput"
            begin, end = ends[i - 1] if follows else stamps.asked_s[i], ends[i]
            assert begin is not None
            assert end is not None
            times.append(end - begin)
    return times


def first_throughput_step(measurement: Measurement) -> int:
    """The number of the epoch's steps before its throughput window."""
    stamps = measurement.stamps
    pairs = zip(stamps.window, stamps.step, strict=True)
    return next((step - 1 for window, step in pairs if window == "throughput"), 0)


def trends_of(launches: Sequence[Measurement]) -> list[Trend]:
    """The trends of the launches' steps, if more than half of them show the same one."""
    return common_trend([trend_of(step_times_s(measurement)) for measurement in launches])


def mean_step_s(measurement: Measurement) -> float | None:
    """Mean seconds of a step in the throughput window; None without one."""
    if measurement.throughput_s is not None and measurement.throughput_steps > 0:
        return measurement.throughput_s / measurement.throughput_steps
    times = step_times_s(measurement)
    return sum(times) / len(times) if times else None


def steps_measured(measurement: Measurement) -> int:
    """Steps in the throughput window."""
    return measurement.throughput_steps or len(step_times_s(measurement))


def sample_of_measurement(measurement: Measurement, cycle: int = 1) -> Sample | None:
    """A summary of the launch's steps; None if nothing was measured.

    `cycle`: number of the loader's workers, which deliver in turn (see `sample_of`).
    """
    mean = mean_step_s(measurement)
    if mean is None:
        return None
    return sample_of(step_times_s(measurement) or [mean], mean, cycle=cycle)


def samples_of(measurements: Sequence[Measurement], cycle: int = 1) -> list[Sample]:
    """A sample per launch that measured something."""
    samples = (sample_of_measurement(measurement, cycle) for measurement in measurements)
    return [s for s in samples if s is not None]


#: Factor by which service and consumer times are changed to find the replay's elasticities.
_NUDGE = 0.05
#: At most so many batches are replayed; a longer epoch continues at the pace of their second half.
_MOST_REPLAYED = 2000
#: A part that moves the epoch by less than this share of its own change raises no flags.
_IDLE = 0.1


@lru_cache(maxsize=256)
def sample_of_load(load: Load, batches: int) -> Sample:
    """The mean step of a whole epoch of `batches` after its first batch, by replay.

    The epoch includes what a window of a few steps cannot show: pre-filled batches, and the slow
    return to the pace that the workers can sustain. Its uncertainty is that of the mean service
    time and of the mean consumer time, each weighted by its effect; flags of parts without effect
    are dropped.
    """
    shown = min(batches, _MOST_REPLAYED)

    def step_s(service_x: float = 1.0, consumer_x: float = 1.0) -> float:
        epoch = replay_epoch(load, shown, service_x=service_x, consumer_x=consumer_x)
        half = shown // 2
        pace_s = (epoch.total_s - epoch.delivered_s[half]) / (shown - half)
        return (epoch.total_s - epoch.delivered_s[0] + (batches - shown) * pace_s) / batches

    mean = step_s()
    variance, worth = 0.0, 1.0
    flags: list[str] = []
    # the first step may be slow, and does not represent the others
    served = load.service_s[load.first_batches :] or load.service_s
    parts = ("service_x", served), ("consumer_x", load.consumer_s[1:] or load.consumer_s)
    for name, values in parts:
        part = sample_of(values)
        if part.mean <= 0 or mean <= 0:
            continue
        error = min(0.9, math.sqrt(part.variance / part.n_eff) / part.mean)
        # the larger of both sides, which differ near the critical point
        moved = max(
            abs(step_s(**{name: 1 + error}) - mean), abs(mean - step_s(**{name: 1 - error}))
        )
        change = step_s(**{name: 1 + _NUDGE}) - step_s(**{name: 1 - _NUDGE})
        variance += moved**2
        if change > _IDLE * 2 * _NUDGE * mean:
            worth = min(worth, part.n_eff / part.n)
            flags += part.flags
    n = len(load.consumer_s)
    n_eff = max(1.0, n * worth)
    return Sample(
        mean=mean, variance=variance * n_eff, n=n, n_eff=n_eff, flags=tuple(dict.fromkeys(flags))
    )


def rows_per_s(measurement: Measurement) -> float | None:
    """Rows per second of the throughput window."""
    stamps = measurement.stamps
    rows, seconds = measurement.throughput_rows, measurement.throughput_s
    if seconds is None:
        rows = sum(r for r, w in zip(stamps.rows, stamps.window, strict=True) if w == "throughput")
        seconds = sum(step_times_s(measurement))
    return rows / seconds if rows and seconds > 0 else None


def mean_wait_s(measurement: Measurement) -> float | None:
    """Mean seconds that a step of the throughput window waited for the loader."""
    waits = waits_s(measurement.stamps)
    return sum(waits) / len(waits) if waits else None


def waits_s(stamps: Stamps) -> list[float]:
    """Seconds that each step of the throughput window waited for the loader.

    While a device still computes the steps that were queued before, nothing waits.
    """
    done = stamps.device_done_s if by_device(stamps) else ()
    waits = []
    for i, window in enumerate(stamps.window):
        if window == "throughput":
            busy_s = (done[i - 1] if done and i else None) or 0.0
            waits.append(max(0.0, stamps.delivered_s[i] - max(stamps.asked_s[i], busy_s)))
    return waits


def data_wait_share(measurement: Measurement) -> float | None:
    """Share of the step in which the training process waited for the loader, 0 .. 1."""
    wait, step = mean_wait_s(measurement), mean_step_s(measurement)
    if wait is None or not step:
        return None
    return min(1.0, max(0.0, wait / step))


def cpu_per_step_s(measurement: Measurement) -> float | None:
    """CPU seconds of the child and its workers per step of the throughput window."""
    if measurement.cpu_s is None or measurement.throughput_steps <= 0:
        return None
    return measurement.cpu_s / measurement.throughput_steps


def stage_means_s(measurements: Sequence[Measurement]) -> dict[str, float]:
    """Mean seconds per batch of each stage, in order of STAGES.

    Stages of the step come from attribution windows, stages of making a batch from its stamps.
    Workers make batches beside the step, so their seconds are not part of the step's time.
    """
    pooled: dict[str, list[float]] = {}
    for measurement in measurements:
        for stages in (measurement.stages, making_stages_s(measurement.stamps)):
            for stage, values in stages.items():
                pooled.setdefault(stage, []).extend(values)
    order = {stage: i for i, stage in enumerate(STAGES)}
    named = sorted((stage for stage in pooled if pooled[stage]), key=lambda s: order.get(s, 99))
    return {stage: sum(pooled[stage]) / len(pooled[stage]) for stage in named}


def making_stages_s(stamps: Stamps) -> dict[str, list[float]]:
    """Seconds of `fetch`, `collate` and `ipc` of each stamped batch in the throughput window.

    `ipc` is the time for a worker to pickle the batch and for the loop to take it from the queue,
    without its time in the queue. Stages that took no time are left out.
    """
    found: dict[str, list[float]] = {"fetch": [], "collate": [], "ipc": []}
    columns = (stamps.fetch_start_s, stamps.fetch_end_s, stamps.collate_end_s, stamps.sent_s)
    for i, (start_s, fetched_s, made_s, sent_s) in enumerate(zip(*columns, strict=True)):
        if stamps.window[i] != "throughput" or start_s is None:
            continue
        assert fetched_s is not None
        assert made_s is not None
        found["fetch"].append(fetched_s - start_s)
        found["collate"].append(made_s - fetched_s)
        if sent_s is not None and stamps.worker[i] is not None:
            taken_s = stamps.delivered_s[i] - max(stamps.asked_s[i], sent_s)
            found["ipc"].append(max(0.0, sent_s - made_s) + max(0.0, taken_s))
    return {stage: seconds for stage, seconds in found.items() if sum(seconds) > 0}


def sizes_of(
    measurements: Sequence[Measurement],
    otherwise: RunSizes | None,
    elsewhere: Sequence[Measurement] = (),
) -> RunSizes | None:
    """Sizes of the real run at this cell's batch size, as its own trials know them.

    A counted epoch overrides what `len()` or the workload promises (`epoch_length`), also if a
    launch in `elsewhere` counted it, of a cell with the same epoch. A run has a single epoch if a
    second one has no batch.
    """
    sizes = next((m.sizes for m in measurements if m.sizes is not None), otherwise)
    if sizes is not None and otherwise is not None:  # which run it is says nobody but the run
        every_s = otherwise.checkpoint_every_s
        sizes = replace(sizes, epochs=otherwise.epochs, checkpoint_every_s=every_s)
    if sizes is not None and sizes.epochs and has_one_epoch(measurements):
        sizes = replace(sizes, epochs=1)
    claimed = sizes.train_batches if sizes is not None else None
    return with_length(sizes, length_in(measurements, elsewhere, claimed))
