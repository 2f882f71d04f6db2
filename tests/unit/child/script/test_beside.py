"""The number of validations and checkpoints per epoch, from those that were seen."""

from __future__ import annotations

import pytest

from ctrkit.child.script.beside import BesideCount


def counted(steps: list[int], count: int = 1) -> BesideCount:
    found = BesideCount()
    for step in steps:
        found.add(count)
        found.epoch_goes_on(step)
    return found


def test_what_follows_an_epoch_counts_once() -> None:
    found = BesideCount()
    found.add(25)
    assert found.of_an_epoch(50, in_epoch=False, whole=250) == 25
    found.next_epoch_begins()
    assert found.of_an_epoch(50, in_epoch=False, whole=250) == 25


@pytest.mark.parametrize(
    ("steps", "seen", "whole", "expected"),
    [
        ([10, 20, 30, 40], 45, 400, 40),  # every ten steps, of an epoch that was cut
        ([1, 11, 21, 31, 41], 45, 400, 40),  # the same, counted from 0
        ([20, 40, 60, 80], 100, 100, 4),  # of a whole epoch: as seen
        ([50], 100, 400, 4),
        ([10, 20], 30, None, 2),  # nobody knows how long it is
        ([], 30, 100, 0),
    ],
)
def test_what_is_inside_goes_on_as_it_came(
    steps: list[int], seen: int, whole: int | None, expected: int
) -> None:
    assert counted(steps).of_an_epoch(seen, in_epoch=True, whole=whole) == expected
    assert counted(steps, 7).of_an_epoch(seen, in_epoch=True, whole=whole) == 7 * expected


def test_the_newest_one_is_inside_while_the_epoch_goes_on() -> None:
    found = counted([10, 20, 30])
    found.add()
    assert found.of_an_epoch(40, in_epoch=True, whole=400) == 40
    # at the end of the epoch it is the one of the last step
    assert found.of_an_epoch(40, in_epoch=False, whole=40) == 4


def test_both_inside_and_after() -> None:
    found = counted([20, 40, 60, 80], 10)
    found.add(10)
    found.next_epoch_begins()
    assert found.of_an_epoch(100, in_epoch=False, whole=100) == 50
