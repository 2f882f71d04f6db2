"""What the user could do instead: fewer epochs, or another device, with the projected time."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ctrkit.core.records import Option
from ctrkit.core.units import format_duration
from ctrkit.measure.projection import Projection
from ctrkit.probe.candidates import Candidate
from ctrkit.probe.search import SearchResult


def options(
    chosen: Candidate,
    ranked: Sequence[Candidate],
    search: SearchResult,
    deadline_s: float | None,
) -> list[Option]:
    """What the user could do instead, each with its projected time."""
    if chosen.projection is None:
        return []
    projection, epochs = chosen.projection, chosen.projection.sizes.epochs
    listed = []
    if deadline_s is not None:
        listed.append(_within(projection, deadline_s))
    for count in dict.fromkeys((epochs // 2, epochs // 3)) if epochs else ():
        if 0 < count < (epochs or 0):
            text = f"{count} of {epochs} epochs (--epochs {count})"
            listed.append(Option(text=text, projected_total_s=projection.total_of(count).mean))
    return listed + _other_devices(chosen, ranked, search)


def _within(projection: Projection, deadline_s: float) -> Option:
    """An option with as many epochs as fit before the deadline at the run's upper bound."""
    epochs = projection.sizes.epochs
    if math.isinf(projection.epoch.high):
        return Option(
            text="ctrkit cannot tell how many epochs fit, because their steps get slower",
            projected_total_s=None,
        )
    fitting = fitting_epochs(projection, deadline_s)
    limit = format_duration(deadline_s)
    if epochs is not None and fitting >= epochs:
        text = f"all {epochs} epochs fit into {limit}"
    elif fitting == 0:
        low = format_duration(projection.total_of(1).mean)
        return Option(
            text=f"not one epoch fits into {limit}: the first takes {low}", projected_total_s=None
        )
    else:
        of = "" if epochs is None else f" of {epochs}"
        text = f"{fitting}{of} epochs fit into {limit} (--epochs {fitting})"
    total_s = projection.total_of(fitting if epochs is None else min(fitting, epochs)).mean
    return Option(text=text, projected_total_s=total_s)


def fitting_epochs(projection: Projection, deadline_s: float) -> int:
    """Number of epochs that end before the deadline even at the projection's upper bound."""
    first = projection.first_epoch or projection.epoch
    left_s = deadline_s - projection.startup.high - first.high
    return max(0, 1 + math.floor(left_s / projection.epoch.high))


def _other_devices(
    chosen: Candidate, ranked: Sequence[Candidate], search: SearchResult
) -> list[Option]:
    """The best cell of each other device, measured or else predicted."""
    if chosen.projection is None or chosen.projection.run is None:
        return []  # without a number of epochs, a run has no time
    totals: dict[str, tuple[float, str]] = {}
    for prediction in search.predictions:
        if prediction.projection is not None:
            device, seconds = prediction.cell.device, prediction.projection.total.mean
            if device not in totals or seconds < totals[device][0]:
                totals[device] = (seconds, "predicted")
    measured: dict[str, tuple[float, str]] = {}
    for candidate in ranked:
        if candidate.projection is not None:
            seconds = candidate.projection.total.mean
            measured.setdefault(candidate.cell.device, (seconds, "measured"))
    totals |= measured
    return [
        Option(text=f"on {device} instead of {chosen.cell.device} ({how})", projected_total_s=s)
        for device, (s, how) in sorted(totals.items())
        if device != chosen.cell.device
    ]
