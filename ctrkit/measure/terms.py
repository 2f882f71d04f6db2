"""The terms of a run other than training: start-up, restart, validation, metrics, checkpoints.

The trials time each of them for real; for a term that was not timed, another one stands in, and a
flag says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ctrkit.core.child_records import Measurement
from ctrkit.core.config import RunSizes
from ctrkit.core.records import Finding
from ctrkit.core.run_time import saves_within
from ctrkit.core.units import format_count, format_percent
from ctrkit.measure.samples import sample_of
from ctrkit.measure.statistics import (
    PROVISIONAL,
    ZERO,
    Interval,
    event_interval,
    interval,
    prediction_interval,
    total,
)
from ctrkit.measure.steps import stage_means_s
from ctrkit.measure.warm_up import split_warm_up

CHECKPOINT_NOT_MEASURED = "checkpoint not measured"
METRICS_NOT_MEASURED = "metrics not measured"
#: The flags for parts that a projection lacks: a run that has them takes longer.
NOT_MEASURED = (CHECKPOINT_NOT_MEASURED, METRICS_NOT_MEASURED)
LEAST_VALIDATION_BATCHES = 20
LEAST_CHECKPOINTS = 2
#: Assumed time of a validation batch that was never timed: a forward pass without a backward pass,
#: so about a third of a step, plus or minus the same.
_VALIDATION_SHARE_OF_STEP = 1 / 3
#: Assumed relative difference of validation batches elsewhere, if only one place was seen.
_ELSEWHERE = 0.25
#: Metrics are mentioned if they may take this share of an epoch's steps.
_METRICS_MATTER = 0.05
_VALIDATION_MATTERS = 0.05
#: The end of an epoch is mentioned if it takes this share of an epoch.
_END_MATTERS = 0.02


def sizes_beside(sizes: RunSizes, beside: Sequence[Measurement]) -> RunSizes:
    """The sizes, with an epoch's validations and checkpoints as other launches saw them."""
    seen = [m.sizes for m in beside if m.sizes is not None]
    validating = next((one for one in seen if one.validation_batches is not None), None)
    saving = next((one for one in seen if one.checkpoints is not None), None)
    if validating is not None:
        sizes = replace(
            sizes,
            validation_batches=validating.validation_batches,
            validations=validating.validations,
            validation_share=validating.validation_share,
        )
    if saving is None:
        return sizes
    return replace(sizes, checkpoints=saving.checkpoints, checkpoint_share=saving.checkpoint_share)


def terms_beside(
    measurements: Sequence[Measurement],
    sizes: RunSizes,
    step: Interval,
    flags: list[str],
    beside: Sequence[Measurement] = (),
    *,
    training_s: float = 0.0,
) -> tuple[Interval, dict[str, Interval]]:
    """The start-up, once per run, and an epoch's terms other than training, by name.

    Args:
        measurements: trials that timed them, the best fitting ones first.
        sizes: sizes of the real run.
        step: seconds per training step.
        flags: flags about the terms are appended.
        beside: launches that timed validation and checkpoint, if these do not depend on the cell;
            otherwise the measurements above timed them.
        training_s: seconds of an epoch's steps, to know how often it is saved between them.

    Returns:
        `within` is what an epoch takes for validations and checkpoints between its steps,
        `validation` and `checkpoint` are those at its end, of a mean epoch where some have none.
    """
    restart, others = _restart(measurements, flags), beside or measurements
    validation, midway = _validation(others, sizes, step, flags, equal=bool(beside))
    write = _checkpoint(others, flags)
    metrics = _metrics(others, sizes, training_s, flags)
    saves = _saves_within(sizes, training_s, step.mean)
    each_epoch = {
        "restart": restart,
        "teardown": _events([m.teardown_s for m in measurements]) or ZERO,
        "within": total([midway, (write or ZERO).scaled(saves)]),
        "validation": _in_some(validation, sizes.validation_share),
    }
    # a part that was not measured gets no term, because 0 s would be a claim
    if metrics is not None:
        each_epoch["metrics"] = metrics
    if write is not None:
        each_epoch["checkpoint"] = _in_some(write, sizes.checkpoint_share)
    return _startup(measurements, restart, others), each_epoch


def _in_some(term: Interval, share: float | None) -> Interval:
    """What comes at the end of so large a share of the epochs, spread over all of them."""
    return term if share is None else term.scaled(share)


def _events(values: Sequence[float | None]) -> Interval | None:
    known = [v for v in values if v is not None]
    return event_interval(known) if known else None


def _startup(
    measurements: Sequence[Measurement], restart: Interval, others: Sequence[Measurement]
) -> Interval:
    """The start-up, once per run.

    It is the time until the first batch, what that takes beyond a restart, and the warm-up, also
    that of the first validation. Persistent workers start only once, also those of the validation
    loader.
    """
    first = [m.first_batch_s for m in measurements if m.first_batch_s is not None]
    validating = [
        max(0.0, m.validation_restart_s - m.validation_again_s)
        for m in others
        if m.validation_restart_s is not None and m.validation_again_s is not None
    ]
    first_validation = [
        split_warm_up(m.validation_batch_s)[1] for m in others if m.validation_batch_s
    ]
    warm_up = [m.warm_up_s for m in measurements if m.stamps.step or m.warm_up_s]
    parts = (
        _events([m.startup_s for m in measurements]),
        _events([max(0.0, first_batch_s - restart.mean) for first_batch_s in first]),
        _events(warm_up),
        _events(validating),
        _events(first_validation),
    )
    return total([part for part in parts if part is not None])


def _restart(measurements: Sequence[Measurement], flags: list[str]) -> Interval:
    """The restart at an epoch boundary; if none was reached, the first batch of a launch."""
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
    equal: bool,
) -> tuple[Interval, Interval]:
    """Seconds of the validation at an epoch's end, and of those between its steps.

    If all launches tell it equally well, all that completed count: a single one may have been
    unlucky.
    """
    batches = sizes.validation_batches
    if not batches:
        return ZERO, ZERO
    timed = _timed(measurements, batches, equal=equal)
    count = sum(len(m.validation_batch_s) for m in timed)
    if count < min(batches, LEAST_VALIDATION_BATCHES):
        flags.append(PROVISIONAL)
    if timed:
        per_batch = _per_batch(timed, batches)
    else:
        forward = stage_means_s(measurements).get("forward")
        mean = forward if forward is not None else step.mean * _VALIDATION_SHARE_OF_STEP
        per_batch = interval(mean, mean)
    times = sizes.validations or 1
    around = [
        _events([_restart_of_validation(m) for m in measurements]) or ZERO,
        _events([m.validation_teardown_s for m in measurements]) or ZERO,
    ]
    each = total([*around, per_batch.scaled(batches / times)])
    return each, each.scaled(times - 1)


def _timed(
    measurements: Sequence[Measurement], batches: int, *, equal: bool = False
) -> list[Measurement]:
    """The launches that timed validation batches: the first ones with enough of them.

    If they are `equal`, all that completed. Launches that timed another place of the data all
    count, until each batch was seen.
    """
    chosen: list[Measurement] = []
    places: set[int] = set()
    timed = 0
    for measurement in measurements:
        place = measurement.validation_from or 0
        enough = timed >= LEAST_VALIDATION_BATCHES and (place in places or timed >= batches)
        enough = enough and not (equal and measurement.complete)
        if measurement.validation_batch_s and not enough:
            chosen.append(measurement)
            places.add(place)
            timed += len(measurement.validation_batch_s)
    return chosen


def _per_batch(timed: Sequence[Measurement], batches: int) -> Interval:
    """Mean seconds of a validation batch over all of them.

    Trials differ more than steps do, because a cached batch waits for no loader. They are pooled by
    size. If only one place was seen, other places may differ. Warm-up is left out.
    """
    samples = [sample_of(split_warm_up(m.validation_batch_s)[0]) for m in timed]
    count = sum(s.n for s in samples)
    mean = sum(s.mean * s.n for s in samples) / count
    half = prediction_interval(samples, batches).half
    places = {m.validation_from or 0 for m in timed}
    if count < batches and len(places) < 2:
        half = math.hypot(half, _ELSEWHERE * mean * (1 - count / batches))
    return interval(mean, half)


def _restart_of_validation(measurement: Measurement) -> float | None:
    """Seconds from asking a validation loader to its first batch, in any epoch but the first."""
    again_s = measurement.validation_again_s
    return measurement.validation_restart_s if again_s is None else again_s


def _metrics(
    measurements: Sequence[Measurement], sizes: RunSizes, training_s: float, flags: list[str]
) -> Interval | None:
    """The task's metrics at the end of an epoch.

    A trial computes them on a part of an epoch, and the whole may take longer: as two parts of
    different sizes show, or, if only one was timed, up to in proportion.
    """
    timed: dict[float, list[float]] = {}
    for measurement in measurements:
        if measurement.metrics_s:
            timed.setdefault(_seen_share(measurement, sizes), []).extend(measurement.metrics_s)
    if not timed and not any(m.complete for m in measurements):
        flags += [PROVISIONAL, METRICS_NOT_MEASURED]
        return None
    if not timed:
        return ZERO
    most = max(timed)
    seen = event_interval(timed[most])
    mean, high = seen.mean, max(seen.high, seen.mean / most)
    least = min(timed)
    if most < 1 and least <= most / 2:
        less_s = sum(timed[least]) / len(timed[least])
        slope = max(0.0, seen.mean - less_s) / (most - least)
        mean += slope * (1 - most)
        high = mean + seen.half * mean / seen.mean if seen.mean > 0 else mean
    if high - mean > max(seen.half, _METRICS_MATTER * training_s):
        flags.append(PROVISIONAL)
    return Interval(mean=mean, low=seen.low, high=high)


def _seen_share(measurement: Measurement, sizes: RunSizes) -> float:
    """The share of validation batches (without any, of steps) that its metrics cover."""
    if sizes.validation_batches:
        seen, of = len(measurement.validation_batch_s), sizes.validation_batches
    else:
        seen, of = max(measurement.stamps.step, default=0), sizes.train_batches or 1
    return min(1.0, max(1, seen) / of)


def _checkpoint(measurements: Sequence[Measurement], flags: list[str]) -> Interval | None:
    """Seconds of one checkpoint; 0 if a trial finished without writing one.

    Returns:
        None if no trial got as far as its first checkpoint, so that its time is unknown.
    """
    writes = [seconds for m in measurements for seconds in m.checkpoint_s]
    if writes:
        if len(writes) < LEAST_CHECKPOINTS:
            flags.append(PROVISIONAL)
        return event_interval(writes)
    if any(m.complete for m in measurements):
        return ZERO
    flags += [PROVISIONAL, CHECKPOINT_NOT_MEASURED]
    return None


def _saves_within(sizes: RunSizes, training_s: float, step_s: float) -> int:
    """Checkpoints of an epoch other than the one at its end: as counted, else by the clock."""
    if sizes.checkpoints is not None:
        return max(0, sizes.checkpoints - 1)
    if sizes.checkpoint_every_s is None:
        return 0
    return saves_within(training_s, sizes.checkpoint_every_s, step_s)


def validation_finding(
    measurements: Sequence[Measurement], sizes: RunSizes, share: float
) -> Finding | None:
    """A finding that only a part of the validation was seen, if validation takes much time."""
    batches = sizes.validation_batches
    timed = _timed(measurements, batches or 0)
    if not batches or not timed or share < _VALIDATION_MATTERS:
        return None
    seen = set[int]()
    for m in timed:
        first = m.validation_from or 0
        seen |= set(range(first, first + len(m.validation_batch_s) + 1))
    if len(seen) >= batches:
        return None
    places = len({m.validation_from or 0 for m in timed})
    where = "the first" if places == 1 else f"at {places} places of the data"
    text = (
        f"validation is {format_percent(share)} of an epoch, and {len(seen)} of its "
        f"{format_count(batches)} batches were timed, {where}: the others may take longer or "
        "shorter; a longer --budget times more of them"
    )
    return Finding(stage="validation", share=None, worth_x=None, text=text, confidence="medium")


def every_epoch_finding(
    launches: Sequence[Measurement],
    each_epoch: Mapping[str, Interval],
    epochs: int | None,
) -> Finding | None:
    """A finding that one epoch's end stands for all: a script may validate only in some epochs.

    None if no launch reached an epoch's end, if the run has one epoch, or if the end takes almost
    no time.

    Args:
        launches: launches that saw validation and checkpoints, each at the end of its first epoch.
        each_epoch: terms of a projected epoch.
        epochs: epochs of the run; None if unknown.
    """
    ended = [m for m in launches if m.restart_s is not None]
    if not ended or epochs == 1:
        return None
    kinds = {
        "validation": [m.validation_restart_s is not None for m in ended],
        "checkpoint": [bool(m.checkpoint_s) for m in ended],
    }
    told = {kind: seen for kind, seen in kinds.items() if _is_in_some_epochs(kind, ended)}
    kinds = {kind: seen for kind, seen in kinds.items() if kind not in told}
    if told and not any(any(seen) for seen in kinds.values()):
        return None  # a note of the trial says in which epochs they come
    came = [f"{name}{_in_some_launches(seen)}" for name, seen in kinds.items() if any(seen)]
    beside_s = sum(
        each_epoch[name].mean
        for name in ("validation", "within", "checkpoint")
        if name in each_epoch
    )
    share = beside_s / sum(term.mean for term in each_epoch.values())
    if not came:
        text = (
            "neither validation nor checkpoint came at the end of the first epoch, so ctrkit "
            "projects none. If the script validates or saves only in later epochs, the run takes "
            "longer"
        )
    elif share < _END_MATTERS:
        return None
    else:
        text = (
            f"{' and '.join(came)} ({format_percent(share)} of an epoch) came in the first epoch, "
            "and the projection counts that in every epoch, since a trial sees the end of one: if "
            "the script does it in every k-th epoch only, the run takes less"
        )
    return Finding(stage="epoch", share=None, worth_x=None, text=text, confidence="medium")


def _is_in_some_epochs(kind: str, launches: Sequence[Measurement]) -> bool:
    sizes = [m.sizes for m in launches if m.sizes is not None]
    return any(getattr(one, f"{kind}_share") is not None for one in sizes)


def _in_some_launches(seen: Sequence[bool]) -> str:
    return "" if all(seen) else f" (in {sum(seen)} of {len(seen)} launches)"
