"""Predicts from a run's ledger when its growing memory will have used up the machine's.

It looks at the last minutes only. In them the run's memory must grow all the time, in the second
half at least half as fast as in the first, because a cache that fills stops growing. The machine's
available memory must fall as well: a process's memory also counts pages of files, which the system
can drop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ctrkit.core.units import format_bytes, format_duration
from ctrkit.supervise.ledger import LedgerRow

#: The most and the fewest rows to look at, each of about a minute.
_MOST_ROWS, _LEAST_ROWS = 12, 6
#: The least growth that matters, in bytes and as a share of the memory at the first row.
_LEAST_BYTES, _LEAST_SHARE = 64_000_000, 0.03
#: The least pace of growth in the second half, as a share of that in the first.
_GOES_ON = 0.5
#: The most that it may fall from one row to the next, as a share of the whole growth.
_NOISE = 0.1
#: The least that available memory must fall, as a share of the run's growth.
_TAKEN = 0.5

ADVICE = (
    "keep no tensor with its graph (loss.item() instead of loss), and look for lists that grow in "
    "the data set or the loop; the run can be ended now and continued from its checkpoint (Ctrl-C, "
    "then ctrkit train --resume), which frees the memory"
)


@dataclass(frozen=True, kw_only=True)
class MemoryEnd:
    """How fast a run's memory grows, and how much is left.

    Args:
        first_bytes: memory of the run's processes at the first row.
        last_bytes: the same at the last row.
        over_s: seconds between the two.
        free_bytes: memory that the machine still has available at the last row.
    """

    first_bytes: int
    last_bytes: int
    over_s: float
    free_bytes: int

    @property
    def bytes_per_s(self) -> float:
        """Growth in bytes per second."""
        return (self.last_bytes - self.first_bytes) / self.over_s

    @property
    def left_s(self) -> float:
        """Seconds until nothing is left at this pace."""
        return self.free_bytes / self.bytes_per_s

    def words(self) -> str:
        """The growth and its end in words."""
        return (
            f"the run's memory grew from {format_bytes(self.first_bytes)} to "
            f"{format_bytes(self.last_bytes)} in the last {format_duration(self.over_s)} "
            f"({format_bytes(60 * self.bytes_per_s)} a minute), and "
            f"{format_bytes(self.free_bytes)} are free: at that rate none is left in "
            f"{format_duration(self.left_s)}"
        )


def memory_end(rows: Sequence[LedgerRow]) -> MemoryEnd | None:
    """When the memory runs out; None if it does not grow steadily, or a figure is unknown.

    Args:
        rows: the session's ledger, oldest first.
    """
    recent = [row for row in _of_last_launch(rows) if row.steps][-_MOST_ROWS:]
    if len(recent) < _LEAST_ROWS:
        return None
    used = _used(recent)
    free = [row.available_bytes for row in recent if row.available_bytes is not None]
    if used is None or len(free) < len(recent):
        return None
    first, middle, last = used[0], used[len(used) // 2], used[-1]
    grown = last - first
    if grown < max(_LEAST_BYTES, _LEAST_SHARE * first) or free[0] - free[-1] < _TAKEN * grown:
        return None
    if max(before - after for before, after in pairwise(used)) > _NOISE * grown:
        return None
    at_s = [row.ended_unix_s for row in recent]
    half = at_s[len(used) // 2]
    early, late = (middle - first) / (half - at_s[0]), (last - middle) / (at_s[-1] - half)
    if late < _GOES_ON * early:
        return None
    return MemoryEnd(
        first_bytes=first, last_bytes=last, over_s=at_s[-1] - at_s[0], free_bytes=free[-1]
    )


def _of_last_launch(rows: Sequence[LedgerRow]) -> list[LedgerRow]:
    """The rows of the last launch: each launch begins with new processes."""
    return [row for row in rows if row.launch == rows[-1].launch]


def _used(rows: Sequence[LedgerRow]) -> list[int] | None:
    """The process tree's memory in each row: PSS if every row has it, else RSS; None if neither."""
    for found in ([row.pss_bytes for row in rows], [row.rss_bytes for row in rows]):
        known = [one for one in found if one]
        if len(known) == len(rows):
            return known
    return None
