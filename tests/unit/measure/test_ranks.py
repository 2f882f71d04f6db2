"""Which rank is late, and whether its loader is the cause."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctrkit.core.progress import RankWriter, WorkerStage
from ctrkit.core.spending import Spending, SpentWriter
from ctrkit.measure.ranks import RankTimes, late_rank, read_rank_times


def times(rank: int, data_wait_s: float, backward_s: float, wall_s: float = 100.0) -> RankTimes:
    return RankTimes(
        rank=rank, wall_s=wall_s, data_wait_s=data_wait_s, backward_s=backward_s, steps=50
    )


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [
        ([times(0, 1, 60), times(1, 55, 6)], (1, True)),  # its loader
        ([times(0, 1, 5), times(1, 1, 70)], (0, False)),  # it computes
        ([times(0, 30, 40), times(1, 30, 10), times(2, 30, 40)], (1, False)),  # all wait for data
        ([times(0, 40, 20), times(1, 41, 19)], None),  # they come together
        ([times(0, 0, 0.5, 1.0), times(1, 0, 0.1, 1.0)], None),  # too short to say
        ([times(0, 1, 60)], None),
        ([], None),
    ],
)
def test_the_rank_that_is_shortest_in_backward_is_the_late_one(
    ranks: list[RankTimes], expected: tuple[int, bool] | None
) -> None:
    found = late_rank(ranks)
    assert (None if found is None else (found.rank, found.waits_for_data)) == expected


def test_the_files_of_all_ranks_are_read_by_their_processes(tmp_path: Path) -> None:
    assert read_rank_times(tmp_path) == []
    now = [100.0]
    rank = RankWriter(tmp_path, 4, clock=lambda: now[0])  # the first of its host need not be rank 0
    spent = SpentWriter(tmp_path / "spent.bin", clock=lambda: now[0])
    spent.enter(Spending.DATA_WAIT)
    now[0] = 103.0
    spent.enter(Spending.COMPUTE)
    rank.enter(WorkerStage.IDLE)
    now[0] = 105.0
    rank.enter(WorkerStage.FETCHING)
    spent.step(8)
    (found,) = read_rank_times(tmp_path, now_s=107.0)
    assert found == RankTimes(rank=4, wall_s=7.0, data_wait_s=3.0, backward_s=2.0, steps=1)
    (ended,) = read_rank_times(tmp_path)
    assert ended.wall_s == 3.0


def test_a_minute_is_the_difference_of_two_readings() -> None:
    before, after = times(1, 10, 20), times(1, 30, 25, 160.0)
    assert after.since(before) == RankTimes(
        rank=1, wall_s=60.0, data_wait_s=20.0, backward_s=5.0, steps=0
    )
