"""Memory that grows from step to step: how fast, and when it will have used all free memory.

A pool that fills in the first steps also grows, and then stops. So memory counts as growing only if
it does so all the time, in the second half as in the first. If the system does not distinguish
private memory from mapped files (macOS), nothing is said, because reading a file would look like
growth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ctrkit.core.memory_points import MemoryPoint
from ctrkit.core.records import Finding
from ctrkit.core.units import format_bytes, format_count, format_duration

_LEAST_POINTS = 4
#: The least growth to consider: so many bytes, and so large a share of the beginning.
_LEAST_BYTES, _LEAST_SHARE = 8_000_000, 0.02
#: The second half must grow by at least this share of the first half's growth.
_GOES_ON = 0.5
#: Memory may fall for a moment by this share of the growth, by garbage collection.
_NOISE = 0.1


@dataclass(frozen=True, kw_only=True)
class Growth:
    """Memory that grew all through a stretch of steps."""

    first: MemoryPoint
    last: MemoryPoint

    @property
    def bytes_a_step(self) -> float:
        """Bytes per step."""
        grown = self.last.private_bytes - self.first.private_bytes
        return grown / (self.last.step - self.first.step)


def growth_of(points: Sequence[MemoryPoint]) -> Growth | None:
    """The growth in a launch's first epoch; None if it does not grow all the time."""
    epoch = [p for p in points if p.epoch == points[0].epoch and p.step > 0] if points else []
    own = list({p.step: p for p in epoch}.values())
    if len(own) < _LEAST_POINTS:
        return None
    first, middle, last = own[0], own[len(own) // 2], own[-1]
    grown = last.private_bytes - first.private_bytes
    if grown < max(_LEAST_BYTES, _LEAST_SHARE * first.private_bytes):
        return None
    dips = [before.private_bytes - after.private_bytes for before, after in pairwise(own)]
    if max(dips) > _NOISE * grown:
        return None
    early = (middle.private_bytes - first.private_bytes) / (middle.step - first.step)
    late = (last.private_bytes - middle.private_bytes) / (last.step - middle.step)
    return Growth(first=first, last=last) if late >= _GOES_ON * early else None


def memory_finding(
    launches: Sequence[Sequence[MemoryPoint]],
    *,
    free_bytes: int | None,
    batches: int | None,
    epochs: int | None,
    step_s: float | None,
) -> Finding | None:
    """A finding that memory runs out before the run ends; None if it does not, or if unknown.

    Args:
        launches: launches of one cell; most of those with enough points must show it.
        free_bytes: memory that the machine can give to the run before it begins.
        batches: batches of an epoch.
        epochs: epochs of the run; None: one.
        step_s: mean seconds of a step.
    """
    tried = [points for points in launches if len(points) >= _LEAST_POINTS]
    found = [growth for growth in map(growth_of, tried) if growth is not None]
    if not found or 2 * len(found) <= len(tried) or free_bytes is None:
        return None
    slowest = min(found, key=lambda growth: growth.bytes_a_step)
    left = free_bytes - slowest.last.private_bytes
    steps = slowest.last.step + max(0.0, left) / slowest.bytes_a_step
    if batches is not None and steps >= batches * (epochs or 1):
        return None
    return Finding(
        stage="memory",
        share=None,
        worth_x=None,
        text=_words(slowest, len(found), free_bytes, steps, batches, step_s),
        confidence="medium" if len(found) > 1 else "low",
    )


def _words(
    growth: Growth,
    launches: int,
    free_bytes: int,
    steps: float,
    batches: int | None,
    step_s: float | None,
) -> str:
    first, last = growth.first, growth.last
    often = f", in each of {launches} launches" if launches > 1 else ""
    after = "" if step_s is None else f", about {format_duration(steps * step_s)} of training"
    where = f" in epoch {int(steps // batches) + 1}" if batches else ""
    return (
        f"memory grows with each step: {format_bytes(first.private_bytes)} after step "
        f"{first.step}, {format_bytes(last.private_bytes)} after step {last.step}, "
        f"{format_bytes(growth.bytes_a_step)} a step{often}. If that goes on, the "
        f"{format_bytes(free_bytes)} that are free have all been used after "
        f"{format_count(round(steps))} steps{where}{after}. A loss that is kept with its graph "
        "does that (keep loss.item()), and so does a list that grows in the data set"
    )
