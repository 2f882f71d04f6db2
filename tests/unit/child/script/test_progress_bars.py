"""Progress bars as a second witness for the length of a run."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from ctrkit.child.script.length import Length
from ctrkit.child.script.progress_bars import Bar, bars_shown, compared_with_bars

READ = Length(epochs=3, told_by="train.py:9: for epoch in range(3)")


@pytest.mark.parametrize(
    ("bars", "group", "agrees"),
    [
        ([Bar(3, 0), Bar(50, 2)], 1, True),  # over the epochs
        ([Bar(150, 2)], 1, True),  # over all batches
        ([Bar(39, 0)], 4, True),  # over all optimizer steps: 13 an epoch
        ([Bar(50, 2)], 1, False),  # of one epoch
        ([Bar(7, 0)], 1, False),  # of something else
        ([], 1, False),
    ],
)
def test_a_bar_that_says_the_same_confirms_it(bars: list[Bar], group: int, agrees: bool) -> None:
    found, note = compared_with_bars(READ, bars, 50, group)
    assert found.epochs == 3
    assert ("a progress bar says so, too" in found.told_by) == agrees
    assert note == ""


def test_a_bar_that_says_something_else_is_noted() -> None:
    found, note = compared_with_bars(READ, [Bar(500, 2)], 50, 1)
    assert found == READ
    assert "says 3, a progress bar to 500 says 10; --epochs N settles it" in note


@pytest.mark.parametrize(
    ("bars", "epochs"),
    [
        ([Bar(500, 2)], 10),
        ([Bar(8, 0), Bar(50, 2)], 8),
        ([Bar(8, 0)], None),  # it may be of anything
        ([Bar(8, 3), Bar(50, 2)], None),  # something that has gone on before the first epoch
        ([Bar(500, 2), Bar(1000, 2)], None),
        ([Bar(75, 2)], None),
    ],
)
def test_bars_fill_a_gap(bars: list[Bar], epochs: int | None) -> None:
    found, note = compared_with_bars(Length(), bars, 50, 1)
    assert (found.epochs, found.at_most, note) == (epochs, epochs is not None, "")


def test_without_the_length_of_an_epoch_bars_say_nothing() -> None:
    assert compared_with_bars(Length(), [Bar(500, 2)], None, 1) == (Length(), "")
    steps = Length(steps=100, told_by="x")
    assert compared_with_bars(steps, [Bar(500, 2)], 50, 1) == (steps, "")


def test_bars_are_found_without_importing_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "tqdm.std", raising=False)
    assert bars_shown() == []
    shown = [
        SimpleNamespace(total=5, n=1), SimpleNamespace(total=None, n=1),
        SimpleNamespace(total=2.5, n=0), SimpleNamespace(total=9.0, n=0.5),
    ]  # fmt: skip
    module = SimpleNamespace(tqdm=SimpleNamespace(_instances=shown))
    monkeypatch.setitem(sys.modules, "tqdm.std", module)  # type: ignore[arg-type]
    assert bars_shown() == [Bar(5, 1), Bar(9, 0)]
