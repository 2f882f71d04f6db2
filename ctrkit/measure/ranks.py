"""Which of several ranks the others wait for, and whether that rank waits for data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ctrkit.core.progress import read_ranks
from ctrkit.core.spending import SPENT_FILE, Spending, Spent, read_spent

#: A rank counts as late only if others wait for it for this share of the time.
_LEAST_SHARE = 0.1
_LEAST_S = 1.0
#: If its own data wait is this share of the others' wait, that is the cause.
_MAINLY = 0.5


@dataclass(frozen=True, kw_only=True)
class RankTimes:
    """What a rank did in some seconds.

    Args:
        rank: its number.
        wall_s: seconds that it was watched.
        data_wait_s: seconds that it waited for its loader.
        backward_s: seconds in backward passes, in which ranks wait for each other.
        steps: steps that it made.
    """

    rank: int
    wall_s: float
    data_wait_s: float
    backward_s: float
    steps: int

    def since(self, before: RankTimes) -> RankTimes:
        """What it did since an earlier reading."""
        return RankTimes(
            rank=self.rank, wall_s=self.wall_s - before.wall_s,
            data_wait_s=self.data_wait_s - before.data_wait_s,
            backward_s=self.backward_s - before.backward_s, steps=self.steps - before.steps,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LateRank:
    """The rank that the others wait for: their mean wait, and its own wait for data.

    `share` is of one rank's time.
    """

    rank: int
    awaited_s: float
    share: float
    data_wait_s: float

    @property
    def waits_for_data(self) -> bool:
        """Whether its loader is the cause."""
        return self.data_wait_s >= _MAINLY * self.awaited_s


def late_rank(times: Sequence[RankTimes]) -> LateRank | None:
    """The rank that comes last to the backward passes; None if they come together.

    All ranks leave a backward pass together, so the rank that spends least time in it came last.
    """
    if len(times) < 2:
        return None
    last, *others = sorted(times, key=lambda one: one.backward_s)
    awaited_s = sum(one.backward_s - last.backward_s for one in others) / len(others)
    if last.wall_s <= 0 or awaited_s < max(_LEAST_S, _LEAST_SHARE * last.wall_s):
        return None
    usual_s = sum(one.data_wait_s for one in others) / len(others)
    return LateRank(
        rank=last.rank, awaited_s=awaited_s, share=awaited_s / last.wall_s,
        data_wait_s=max(0.0, last.data_wait_s - usual_s),
    )  # fmt: skip


def read_rank_times(folder: Path, now_s: float | None = None) -> list[RankTimes]:
    """The times of all ranks of a script's run, in order; empty if it trains alone.

    Args:
        folder: the child's folder.
        now_s: `time.monotonic()`, to count the current activity; None when they have ended.
    """
    spent = {one.pid: one for one in _all_spent(folder)}
    found = []
    for rank in read_ranks(folder):
        own = spent.get(rank.pid)
        if own is None:
            continue
        seconds = own.seconds if now_s is None else own.until(now_s)
        found.append(
            RankTimes(
                rank=rank.worker,
                wall_s=sum(seconds),
                steps=own.steps,
                data_wait_s=seconds[Spending.DATA_WAIT],
                backward_s=rank.waited_s,
            )
        )
    return found


def _all_spent(folder: Path) -> Iterable[Spent]:
    for path in (folder / SPENT_FILE, *folder.glob(f"rank-*/{SPENT_FILE}")):
        try:
            found = read_spent(path)
        except OSError:
            continue
        if found is not None:
            yield found
