"""The terms of a run beside its training: start-up, restart, teardown, validation, checkpoint.

Each is timed for real by the trials; where one was not, another stands in and a flag says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ctrkit.core.config import RunSizes
from ctrkit.core.records import Measurement
from ctrkit.measure.statistics import (
    PROVISIONAL,
    ZERO,
    Interval,
    event_interval,
    interval,
    prediction_interval,
    sample_of,
    total,
)
from ctrkit.measure.steps import stage_means_s

LEAST_VALIDATION_BATCHES = 20
LEAST_CHECKPOINTS = 2
#: A validation batch that was never timed: a forward pass without its backward pass, so about a
#: third of a step, give or take as much again.
_VALIDATION_SHARE_OF_STEP = 1 / 3


def sizes_beside(sizes: RunSizes, beside: Sequence[Measurement]) -> RunSizes:
    """The sizes with the validation and the checkpoints of an epoch as other launches saw them."""
    seen = [m.sizes for m in beside if m.sizes is not None]
    validating = next((one for one in seen if one.validation_batches is not None), None)
    saving = next((one for one in seen if one.checkpoints is not None), None)
    if validating is not None:
        sizes = replace(
            sizes,
            validation_batches=validating.validation_batches,
            validations=validating.validations,
        )
    return sizes if saving is None else replace(sizes, checkpoints=saving.checkpoints)


def terms_beside(
    measurements: Sequence[Measurement],
    sizes: RunSizes,
    step: Interval,
    flags: list[str],
    beside: Sequence[Measurement] = (),
) -> tuple[Interval, dict[str, Interval]]:
    """The start-up, once a run, and what each epoch takes beside its training, by name.

    Args:
        measurements: trials that timed them, the most fitting ones first.
        sizes: of the real run.
        step: seconds per training step.
        flags: what has to be said of the terms is added.
        beside: launches that timed validation and checkpoint, where these do not depend on the
            cell; else the measurements above did.
    """
    restart = _restart(measurements, flags)
    each_epoch = {
        "restart": restart,
        "teardown": _events([m.teardown_s for m in measurements]) or ZERO,
        "validation": _validation(beside or measurements, sizes, step, flags, equal=bool(beside)),
        "checkpoint": _checkpoint(beside or measurements, sizes, flags),
    }
    return _startup(measurements, restart), each_epoch


def _events(values: Sequence[float | None]) -> Interval | None:
    known = [v for v in values if v is not None]
    return event_interval(known) if known else None


def _startup(measurements: Sequence[Measurement], restart: Interval) -> Interval:
    """Until the first step, once a run: what its first batch takes longer than a restart, too.

    Workers that persist start then and never again.
    """
    startup = _events([m.startup_s for m in measurements]) or ZERO
    first = [m.first_batch_s for m in measurements if m.first_batch_s is not None]
    longer = _events([max(0.0, first_batch_s - restart.mean) for first_batch_s in first])
    return total([startup, longer]) if longer else startup


def _restart(measurements: Sequence[Measurement], flags: list[str]) -> Interval:
    """A real epoch boundary; the first batch of a launch stands in where none was reached."""
    restart = _events([m.restart_s for m in measurements])
    if restart is None:
        flags.append(PROVISIONAL)
        restart = _events([m.first_batch_s for m in measurements])
    return restart or ZERO


def _validation(
    measurements: Sequence[Measurement],
    sizes: RunSizes,
    step: Interval,
    flags: list[str],
    *,
    equal: bool = False,
) -> Interval:
    """Seconds of an epoch's validation: the loader's starts and the batches.

    Where all launches tell it equally well, all that came to their end count: one alone may have
    had a bad moment.
    Else later ones count only while those before them have timed too few batches.
    """
    batches = sizes.validation_batches
    if not batches:
        return ZERO
    samples, timed = [], 0
    for measurement in measurements:
        needed = timed < LEAST_VALIDATION_BATCHES or (equal and measurement.complete)
        if measurement.validation_batch_s and needed:
            samples.append(sample_of(measurement.validation_batch_s))
            timed += samples[-1].n
    if timed < min(batches, LEAST_VALIDATION_BATCHES):
        flags.append(PROVISIONAL)
    if samples:
        # Trials differ by more than steps do: a cached batch waits for no loader. Pooled by size.
        mean = sum(s.mean * s.n for s in samples) / timed
        half = prediction_interval(samples, batches).half
        per_batch = interval(mean, half)
    else:
        forward = stage_means_s(measurements).get("forward")
        mean = forward if forward is not None else step.mean * _VALIDATION_SHARE_OF_STEP
        per_batch = interval(mean, mean)
    start = _events([m.validation_restart_s for m in measurements]) or ZERO
    return total([start.scaled(sizes.validations or 1), per_batch.scaled(batches)])


def _checkpoint(measurements: Sequence[Measurement], sizes: RunSizes, flags: list[str]) -> Interval:
    """An epoch's checkpoints, one where they were not counted.

    None where trials came to their end and had nothing to write.
    """
    writes = [seconds for m in measurements for seconds in m.checkpoint_s]
    if not writes:
        if not all(m.complete for m in measurements):
            flags.append(PROVISIONAL)
        return ZERO
    if len(writes) < LEAST_CHECKPOINTS:
        flags.append(PROVISIONAL)
    return event_interval(writes).scaled(sizes.checkpoints or 1)
