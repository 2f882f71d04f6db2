"""The best epoch, and notes for a reader of the figures."""

from __future__ import annotations

from ctrkit.core.epochs import EpochRow, OddValue
from ctrkit.report.epoch_figures import best_epoch, epoch_notes


def rows(*values: float | None, column: str = "f1") -> list[EpochRow]:
    return [{"epoch": n + 1, "rows": 5, column: value} for n, value in enumerate(values)]


def test_the_best_epoch_is_the_first_of_the_best_value() -> None:
    best = best_epoch(rows(0.2, 0.5, 0.5), ("f1", "max"))
    assert best is not None
    assert best["epoch"] == 2
    least = best_epoch(rows(-1.0, 0.0, -2.0), ("f1", "min"))
    assert least is not None
    assert least["epoch"] == 3
    assert best_epoch(rows(0.2), None) is None
    assert best_epoch(rows(None), ("f1", "max")) is None


def test_figures_without_anything_odd_need_no_notes() -> None:
    assert epoch_notes(rows(0.2, 0.3), [], ("f1", "max")) == []


def test_every_odd_value_is_told_once_per_kind() -> None:
    odd = [OddValue(1, "f1", "nan"), OddValue(3, "f1", "nan"), OddValue(2, "note", "good\x1b[2J")]
    lines = epoch_notes(rows(None, 0.1, None), odd, None)
    assert lines == [
        "f1 is nan in epochs 1, 3",
        "note is no number in epoch 2 ('good\\x1b[2J'): epochs.csv keeps it as text",
    ]


def test_a_metric_that_appears_later_and_one_that_was_renamed_are_told() -> None:
    found = rows(None, 0.1)
    for row in found:
        row["metric_rows"] = 3.0
    assert epoch_notes(found, [], None) == [
        "f1 has no value in epoch 1",
        "metric_rows is the workload's metric 'rows': rows is a column of every run",
    ]


def test_a_watched_metric_that_no_epoch_has_is_told() -> None:
    (line,) = epoch_notes(rows(0.1), [], ("accuracy", "max"))
    assert line.startswith("accuracy is watched, but no epoch has a number for it")
