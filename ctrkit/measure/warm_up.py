"""The slow first steps of a run: compiling, choosing kernels, first allocations.

The steps show how many there are: the first steps that each took longer than any step after them.
They occur once, so they belong to the start of a run and not to its pace.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace

from ctrkit.core.child_records import Measurement, Stamps

#: A step at the beginning counts as warm-up if it takes so many times a usual one, ...
_SLOW = 2.0
#: ... and all of them together longer than this.
_WORTH_S = 0.05
_MOST_STEPS, _MOST_VALIDATION_BATCHES = 20, 3
#: With fewer later steps, nothing can be said about a usual one.
_LEAST_LATER = 3


def without_warm_up(measurement: Measurement) -> Measurement:
    """The same launch with its warm-up separated: `warm_up_steps` and `warm_up_s`.

    It examines the steps of the first epoch without their waits for data. If a second epoch's first
    steps are as slow, that is the data, not warm-up.
    """
    stamps = measurement.stamps
    places = [
        i
        for i, window in enumerate(stamps.window)
        if stamps.epoch[i] == 1 and window in ("warmup", "throughput")
    ]
    steps_s = [stamps.done_s[i] - stamps.delivered_s[i] for i in places]
    slow = _slow_at_first(steps_s)
    if not slow or _comes_again(measurement, steps_s, slow):
        return measurement
    longer_s = sum(steps_s[:slow]) - slow * statistics.fmean(steps_s[slow:])
    if longer_s < _WORTH_S:
        return measurement
    epoch_s = measurement.epoch_s
    return replace(
        _timed_without(measurement, [i for i in places[:slow] if _is_timed(stamps, i)]),
        warm_up_steps=slow,
        warm_up_s=longer_s,
        epoch_s=None if epoch_s is None else max(0.0, epoch_s - longer_s),
    )


def split_warm_up(times_s: Sequence[float]) -> tuple[Sequence[float], float]:
    """Times without the slow first ones, and by how many seconds these took longer in all.

    The first validation batches of a process compile and choose kernels, too.
    """
    slow = _slow_at_first(times_s)
    if not 0 < slow <= _MOST_VALIDATION_BATCHES:  # more of them are the data's
        return times_s, 0.0
    later = times_s[slow:]
    longer_s = sum(times_s[:slow]) - slow * statistics.fmean(later)
    return (later, longer_s) if longer_s >= _WORTH_S else (times_s, 0.0)


def _timed_without(measurement: Measurement, slow: Sequence[int]) -> Measurement:
    """The same with these first steps of its throughput window counted as warm-up."""
    if not slow or measurement.throughput_s is None:
        return measurement
    stamps, steps = measurement.stamps, measurement.throughput_steps
    follows = slow[0] > 0 and _is_timed(stamps, slow[0] - 1)
    began_s = stamps.done_s[slow[0] - 1] if follows else stamps.asked_s[slow[0]]
    left_s = max(0.0, measurement.throughput_s - (stamps.done_s[slow[-1]] - began_s))
    share = left_s / measurement.throughput_s if measurement.throughput_s > 0 else 0.0
    windows = ["warmup" if i in slow else window for i, window in enumerate(stamps.window)]
    return replace(
        measurement,
        throughput_s=left_s,
        throughput_steps=steps - len(slow),
        throughput_rows=measurement.throughput_rows - sum(stamps.rows[i] for i in slow),
        cpu_s=None if measurement.cpu_s is None else measurement.cpu_s * share,
        stages={
            # one entry per step of that window, if it was timed by stages
            stage: values[len(slow) :] if len(values) == steps else values
            for stage, values in measurement.stages.items()
        },
        stamps=replace(stamps, window=windows),
    )


def _is_timed(stamps: Stamps, i: int) -> bool:
    return stamps.window[i] == "throughput"


def _slow_at_first(steps_s: Sequence[float]) -> int:
    """The number of first steps that are each slower than all later ones, and much slower."""
    slow = 0
    for count in range(1, min(_MOST_STEPS, len(steps_s) - _LEAST_LATER) + 1):
        later = steps_s[count:]
        least_s = min(steps_s[:count])
        if least_s > max(later) and least_s > _SLOW * statistics.median(later):
            slow = count
    return slow


def _comes_again(measurement: Measurement, steps_s: Sequence[float], slow: int) -> bool:
    """Whether the second epoch's first steps are as slow, as far as they were seen."""
    stamps = measurement.stamps
    again = [
        stamps.done_s[i] - stamps.delivered_s[i]
        for i, epoch in enumerate(stamps.epoch)
        if epoch == 2 and stamps.step[i] <= slow
    ]
    return bool(again) and min(again) > _SLOW * statistics.median(steps_s[slow:])
