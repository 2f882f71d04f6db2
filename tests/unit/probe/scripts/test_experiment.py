"""Whether a configuration trains the same, from hashes of batches and rows."""

from __future__ import annotations

import pytest

from ctrkit.core.config import make_cell
from ctrkit.core.script_records import ScriptSeen
from ctrkit.probe.scripts.experiment import compared, sameness


def seen(batches: str, rows: str = "", later: str = "") -> ScriptSeen:
    """A launch whose batches, rows, and rows of the second epoch hash to these letters."""
    return ScriptSeen(
        pid=1, batch_hashes=list(batches), row_hashes=list(rows), later_row_hashes=list(later)
    )


@pytest.mark.parametrize(
    ("own", "other", "answer"),
    [
        ([seen("abc", "123")], seen("abcd", "1234"), "same batches"),
        ([seen("abc", "123"), seen("abc", "123")], seen("xyz", "123"), "other content"),
        # augmentation is not seeded, the order is
        ([seen("abc", "123"), seen("def", "123")], seen("xyz", "123"), "other content"),
        ([seen("abc", "123"), seen("abc", "123")], seen("bac", "213"), "same rows, other order"),
        ([seen("abc", "123"), seen("bca", "231")], seen("xyz", "312"), "cannot tell"),
        ([seen("abc", "123")], seen("xyz", "789"), "cannot tell"),
        ([seen("abc", "123"), seen("abc", "123")], seen("xyz", "789"), "cannot tell"),
        ([], seen("abc"), "cannot tell"),
        ([seen("")], seen(""), "cannot tell"),
        ([seen("abc", "123")], seen("", "123"), "cannot tell"),
    ],
)
def test_sameness(own: list[ScriptSeen], other: ScriptSeen, answer: str) -> None:
    assert sameness(own, other)[0] == answer


def test_what_cannot_be_told_has_its_reason() -> None:
    _, why = sameness([seen("abc", "123"), seen("bca", "231")], seen("xyz", "312"))
    assert "not seeded" in why


def test_the_least_similar_launch_of_a_cell_counts() -> None:
    own, cell = make_cell(workers=0), make_cell(workers=2)
    launches = [(own, seen("abc", "123")), (cell, seen("abc", "123")), (cell, seen("abd", "123"))]
    assert compared(launches, own) == {cell: ("other content", "")}


@pytest.mark.parametrize(
    ("own", "other", "answer"),
    [
        (["321", "3215"], "32", "same batches"),
        (["321", "321"], "213", "same rows, other order"),
        (["321", "132"], "213", "same batches"),  # as written it differs there, too: no proof
        (["321"], "213", "same batches"),
        (["321", "321"], "", "same batches"),
    ],
)
def test_the_second_epoch_is_compared_where_launches_as_written_agree_on_it(
    own: list[str], other: str, answer: str
) -> None:
    as_written = [seen("abc", "123", later) for later in own]
    found, why = sameness(as_written, seen("abc", "123", other))
    assert found == answer
    assert ("second epoch" in why) == (answer != "same batches")
