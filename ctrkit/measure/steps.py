"""Step times, waits and stage means of one trial, read from its raw measurement."""

from __future__ import annotations

from collections.abc import Sequence

from ctrkit.config import RunSizes
from ctrkit.measure.statistics import Sample, sample_of
from ctrkit.records import STAGES, Measurement


def step_times_s(measurement: Measurement) -> list[float]:
    """Seconds of each step of the throughput window, from the end of one to the end of the next.

    On an accelerator single steps may end out of step with the device; their mean is then that
    of the window, which is synchronised at its ends (`mean_step_s`).
    """
    stamps = measurement.stamps
    times: list[float] = []
    for i, window in enumerate(stamps.window):
        if window == "throughput":
            follows = i > 0 and stamps.window[i - 1] == "throughput"
            begin = stamps.done_s[i - 1] if follows else stamps.asked_s[i]
            times.append(stamps.done_s[i] - begin)
    return times


def mean_step_s(measurement: Measurement) -> float | None:
    """Mean seconds of a step in the throughput window, None where there was none."""
    if measurement.throughput_s is not None and measurement.throughput_steps > 0:
        return measurement.throughput_s / measurement.throughput_steps
    times = step_times_s(measurement)
    return sum(times) / len(times) if times else None


def steps_measured(measurement: Measurement) -> int:
    """Steps in the throughput window."""
    return measurement.throughput_steps or len(step_times_s(measurement))


def sample_of_measurement(measurement: Measurement) -> Sample | None:
    """The launch's steps in short, None where nothing was measured."""
    mean = mean_step_s(measurement)
    if mean is None:
        return None
    return sample_of(step_times_s(measurement) or [mean], mean)


def samples_of(measurements: Sequence[Measurement]) -> list[Sample]:
    """A sample per launch that measured something."""
    return [s for s in map(sample_of_measurement, measurements) if s is not None]


def rows_per_s(measurement: Measurement) -> float | None:
    """Rows per second of the throughput window."""
    stamps = measurement.stamps
    rows, seconds = measurement.throughput_rows, measurement.throughput_s
    if seconds is None:
        rows = sum(r for r, w in zip(stamps.rows, stamps.window, strict=True) if w == "throughput")
        seconds = sum(step_times_s(measurement))
    return rows / seconds if rows and seconds > 0 else None


def mean_wait_s(measurement: Measurement) -> float | None:
    """Mean seconds that a step of the throughput window blocked on the loader."""
    stamps = measurement.stamps
    waits = [
        stamps.delivered_s[i] - stamps.asked_s[i]
        for i, window in enumerate(stamps.window)
        if window == "throughput"
    ]
    return sum(waits) / len(waits) if waits else None


def data_wait_share(measurement: Measurement) -> float | None:
    """Share of the step for which the training process blocked on the loader, in 0 .. 1."""
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
    """Mean seconds per step of each stage that the attribution windows saw, in order of STAGES."""
    pooled: dict[str, list[float]] = {}
    for measurement in measurements:
        for stage, values in measurement.stages.items():
            pooled.setdefault(stage, []).extend(values)
    order = {stage: i for i, stage in enumerate(STAGES)}
    named = sorted((stage for stage in pooled if pooled[stage]), key=lambda s: order.get(s, 99))
    return {stage: sum(pooled[stage]) / len(pooled[stage]) for stage in named}


def sizes_of(measurements: Sequence[Measurement], otherwise: RunSizes | None) -> RunSizes | None:
    """Sizes of the real run at this cell's batch size, as its own trials know them.

    A loader without a length that ended by itself has been counted: that is its epoch.
    """
    sizes = next((m.sizes for m in measurements if m.sizes is not None), otherwise)
    if sizes is not None and sizes.train_batches is not None:
        return sizes
    counted = next((m for m in measurements if m.epoch_complete and m.epoch_batches > 0), None)
    if counted is None:
        return sizes
    known = sizes or RunSizes(epochs=1)
    return RunSizes(
        epochs=known.epochs,
        train_rows=known.train_rows or counted.epoch_rows or None,
        train_batches=counted.epoch_batches,
        validation_rows=known.validation_rows,
        validation_batches=known.validation_batches,
        patience=known.patience,
    )
