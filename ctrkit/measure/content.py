"""How much of the scatter of step times comes from the batches: some simply cost more.

The same batch in two launches tells that: if both took longer for it, that is its content; if only
one did, that is noise. Launches that saw the same batches have seen no more of the epoch than one
of them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from ctrkit.core.child_records import Measurement
from ctrkit.measure.statistics import Content
from ctrkit.measure.steps import step_times_s

#: With fewer common batches, no correlation is estimated: all scatter may be content.
_LEAST_COMMON = 8


def content_of(launches: Sequence[Measurement], batches: float) -> Content | None:
    """The part of the steps' scatter that comes from content; None if no batch was seen twice.

    Args:
        launches: launches of one cell.
        batches: batches of an epoch.
    """
    seen = [steps_by_batch(m) for m in launches]
    distinct = len(set().union(*seen)) if seen else 0
    counted = sum(len(one) for one in seen)
    if not distinct or distinct == counted or not _gives_the_same(launches):
        return None
    shares, weights = [], []
    for one, other in itertools.combinations(seen, 2):
        common = sorted(one.keys() & other.keys())
        if len(common) >= _LEAST_COMMON:
            pair = [one[i] for i in common], [other[i] for i in common]
            shares.append(_correlation(*pair))
            weights.append(len(common))
    share = float(np.average(shares, weights=weights)) if shares else 1.0
    return Content(share=share, distinct=distinct, batches=batches)


def first_batches_only(launches: Sequence[Measurement]) -> int | None:
    """How many batches of the epoch were seen, if all launches began with the first one.

    None if another place was seen, if the epoch was run to its end, or if nothing was measured.
    """
    if not launches or any(m.first_batch or m.epoch_complete for m in launches):
        return None
    return max((max(steps_by_batch(m), default=0) for m in launches), default=0) or None


def steps_by_batch(measurement: Measurement) -> dict[int, float]:
    """Seconds of each step of the throughput window, by the number of its batch in the epoch."""
    stamps = measurement.stamps
    places = [
        step + measurement.first_batch
        for step, window in zip(stamps.step, stamps.window, strict=True)
        if window == "throughput"
    ]
    return dict(zip(places, step_times_s(measurement), strict=True))


def _gives_the_same(launches: Sequence[Measurement]) -> bool:
    """Whether launches that begin at the same batch get the same one, as far as hashes tell."""
    first: dict[int, set[str]] = {}
    for m in launches:
        if m.batch_hashes and m.batch_hashes[0]:
            first.setdefault(m.first_batch, set()).add(m.batch_hashes[0])
    return all(len(hashes) == 1 for hashes in first.values())


def _correlation(one: Sequence[float], other: Sequence[float]) -> float:
    """The correlation plus its standard error, since a few common batches estimate it badly."""
    a, b = np.asarray(one), np.asarray(other)
    spread = float(a.std() * b.std())
    if spread <= 0:
        return 0.0
    r = float(np.mean((a - a.mean()) * (b - b.mean()))) / spread
    return min(1.0, max(0.0, r) + (1 - r * r) / math.sqrt(a.size))
