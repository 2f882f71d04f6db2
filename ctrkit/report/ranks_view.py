"""Shows the ranks of a script: what each one waits for, and which one is late."""

from __future__ import annotations

from collections.abc import Sequence

from ctrkit.core.units import format_count, format_duration
from ctrkit.measure.ranks import LateRank, RankTimes, late_rank
from ctrkit.report.blocks import Column, Paragraph, Section, Table
from ctrkit.report.words import percent


def late_words(late: LateRank) -> str:
    """`rank 1 is late: the others wait for it 41 % of the time, since it waits for data`."""
    why = ", since it waits for data" if late.waits_for_data else "; it does not wait for data more"
    if not late.waits_for_data:
        why += " than they do: it computes longer, or does something else"
    return (
        f"rank {late.rank} is late: the others wait for it {percent(late.share)} of the time{why}"
    )


def late_title(late: LateRank) -> str:
    """The same in a few words, for a title."""
    why = "data wait" if late.waits_for_data else "late"
    return f"rank {late.rank} {why} {percent(late.share)}"


def ranks_section(times: Sequence[RankTimes]) -> Section:
    """A row for each rank, and the rank that the others waited for."""
    columns = (Column("rank"), Column("steps"), Column("data wait"), Column("in backward"))
    rows = tuple(
        (str(one.rank), format_count(one.steps), _of(one.data_wait_s, one.wall_s),
         _of(one.backward_s, one.wall_s))
        for one in times
    )  # fmt: skip
    late = late_rank(times)
    words = late_words(late) if late is not None else "no rank was late for the others"
    return Section(
        "Ranks",
        (
            Table(columns, rows),
            Paragraph(
                f"{words[0].upper()}{words[1:]}. In a backward pass a rank also waits for the "
                "others; the ledger counts that as computing."
            ),
        ),
    )


def _of(seconds: float, wall_s: float) -> str:
    share = f" ({percent(seconds / wall_s)})" if wall_s > 0 else ""
    return f"{format_duration(seconds)}{share}"
