"""The late rank of the last minute of a script's run."""

from __future__ import annotations

from pathlib import Path

from ctrkit.commands.ranks_watch import RanksWatch
from ctrkit.measure.ranks import RankTimes
from ctrkit.report.ranks_view import late_title, late_words, ranks_section


def reading(now_s: float, late: int) -> list[RankTimes]:
    """After so long: the rank that is late waits for data, the other one waits for it."""
    return [
        RankTimes(
            rank=rank, wall_s=now_s, steps=int(now_s),
            data_wait_s=0.8 * now_s if rank == late else 0.0,
            backward_s=0.1 * now_s if rank == late else 0.9 * now_s,
        )
        for rank in (0, 1)
    ]  # fmt: skip


def test_it_is_said_once_it_was_seen_for_a_while() -> None:
    watch = RanksWatch(Path("x"), read=lambda _, now_s: reading(now_s or 0.0, late=1))
    assert watch.look(10.0) is None  # nothing to compare with
    late = watch.look(14.0)
    assert late is not None
    assert not watch.is_sure
    late = watch.look(40.0)
    assert late is not None
    assert watch.is_sure
    assert late_title(late) == "rank 1 data wait 80 %"
    assert late_words(late) == (
        "rank 1 is late: the others wait for it 80 % of the time, since it waits for data"
    )


def test_a_rank_that_comes_later_begins_the_minute_anew() -> None:
    ranks = [reading(50.0, late=0)[:1], reading(60.0, late=0), reading(70.0, late=0)]
    watch = RanksWatch(Path("x"), read=lambda *_: ranks.pop(0))
    assert watch.look(50.0) is None
    assert watch.look(60.0) is None
    late = watch.look(70.0)
    assert late is not None
    assert late.rank == 0


def test_the_report_has_a_row_for_each_rank() -> None:
    section = ranks_section(reading(100.0, late=1))
    table, paragraph = section.blocks
    assert [row[0] for row in table.rows] == ["0", "1"]  # type: ignore[union-attr]
    assert "80.0 s (80 %)" in table.rows[1] or "1 min 20 s (80 %)" in table.rows[1]  # type: ignore[union-attr]
    assert "Rank 1 is late" in str(paragraph)
