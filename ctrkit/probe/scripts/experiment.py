"""Tells from a cell's first batches whether it trains the same thing as the script as written.

It compares hashes of batches, and of the row numbers that the sampler drew, in order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from ctrkit.core.config import Cell
from ctrkit.core.script_records import ScriptSeen

Sameness = Literal["same batches", "same rows, other order", "other content", "cannot tell"]

#: Each answer as a sentence.
SAMENESS_WORDS: Mapping[str, str] = {
    "same batches": "trains on the same batches in the same order",
    "same rows, other order": "trains on the same rows, but in another order",
    "other content": (
        "trains on the same rows in the same order, but their content differs: random "
        "augmentation or masking now runs in the workers, with other random numbers"
    ),
    "cannot tell": "may train on other batches: ctrkit could not tell",
}


def sameness(as_written: Sequence[ScriptSeen], other: ScriptSeen) -> tuple[Sameness, str]:
    """Whether another launch got the same batches as the script as written, and why if unknown.

    Args:
        as_written: launches as written; two of them tell whether the script is seeded.
        other: the launch to compare.
    """
    if not as_written:
        return "cannot tell", "the script as written gave no batch to compare with"
    first = as_written[0]
    if _agree(first.batch_hashes, other.batch_hashes):
        if _differs_later(as_written, other):
            return "same rows, other order", "from the second epoch on"
        return "same batches", ""
    if not first.batch_hashes or not other.batch_hashes:
        return "cannot tell", "ctrkit saw no batch of one of them"
    seeded_content = all(_agree(first.batch_hashes, one.batch_hashes) for one in as_written[1:])
    seeded_rows = all(_agree(first.row_hashes, one.row_hashes) for one in as_written[1:])
    if len(as_written) > 1 and not seeded_rows and not seeded_content:
        return "cannot tell", "the script is not seeded: two launches as written also differ"
    if _agree(first.row_hashes, other.row_hashes):
        return "other content", ""
    if len(as_written) < 2:
        return "cannot tell", "the script as written was launched once only; it may not be seeded"
    count = min(len(first.row_hashes), len(other.row_hashes))
    if count and sorted(first.row_hashes[:count]) == sorted(other.row_hashes[:count]):
        return "same rows, other order", ""
    if first.row_hashes and other.row_hashes:
        return "cannot tell", f"the first {count} batches have other rows"
    return "cannot tell", "the sampler's row numbers were not seen"


def _differs_later(as_written: Sequence[ScriptSeen], other: ScriptSeen) -> bool:
    """Whether the second epoch has other rows although launches as written agree there."""
    later = [one.later_row_hashes for one in as_written if one.later_row_hashes]
    if len(later) < 2 or not other.later_row_hashes:
        return False
    seeded = all(_agree(later[0], one) for one in later[1:])
    return seeded and not _agree(later[0], other.later_row_hashes)


def _agree(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether both saw something, and agree as far as both saw it."""
    count = min(len(one), len(other))
    return count > 0 and list(one[:count]) == list(other[:count])


def compared(
    seen: Sequence[tuple[Cell, ScriptSeen]], as_written: Cell
) -> dict[Cell, tuple[Sameness, str]]:
    """By other cell, the result of its least similar launch."""
    own = [one for cell, one in seen if cell == as_written]
    order: tuple[Sameness, ...] = (
        "same batches", "other content", "same rows, other order", "cannot tell",
    )  # fmt: skip
    found: dict[Cell, tuple[Sameness, str]] = {}
    for cell, one in seen:
        if cell == as_written:
            continue
        result = sameness(own, one)
        if cell not in found or order.index(result[0]) > order.index(found[cell][0]):
            found[cell] = result
    return found
