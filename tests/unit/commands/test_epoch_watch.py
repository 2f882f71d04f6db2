"""Epochs are shown once, and again if they are trained again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ctrkit.commands.epoch_watch import EpochWatch


class Display:
    def __init__(self) -> None:
        self.shown: list[int] = []
        self.rows: list[dict[str, Any]] = []
        self.messages: list[str] = []

    def epoch_done(self, row: dict[str, Any]) -> None:
        self.shown.append(row["epoch"])
        self.rows.append(row)

    def message(self, text: str) -> None:
        self.messages.append(text)


def test_epochs_that_are_trained_again_are_shown_again(tmp_path: Path) -> None:
    display = Display()
    watch = EpochWatch(tmp_path / "epochs.csv", display, skip=0)  # type: ignore[arg-type]
    for rows in (0, 1, 2, 2, 1, 2):
        lines = ["epoch,val_auc", *(f"{epoch}," for epoch in range(1, rows + 1))]
        (tmp_path / "epochs.csv").write_text("\n".join(lines) + "\n")
        watch.look()
    assert display.shown == [1, 2, 2]


def test_what_is_no_number_is_shown_and_said_once_an_epoch(tmp_path: Path) -> None:
    display, path = Display(), tmp_path / "epochs.csv"
    watch = EpochWatch(path, display, skip=0, watched=("f1", "max"))  # type: ignore[arg-type]
    path.write_text("epoch,metric_rows,f1\n1,5,0.5\n")
    watch.look()
    renamed = "metric_rows is the workload's metric 'rows': rows is a column of every run"
    assert display.messages == [renamed]
    path.write_text("epoch,metric_rows,f1\n1,5,0.5\n2,5,nan\n")
    watch.look()
    watch.look()
    assert display.rows[1]["f1"] == "nan"
    assert display.messages == [renamed, "f1 is nan in epoch 2"]


def test_a_watched_metric_that_never_comes_is_said_while_training(tmp_path: Path) -> None:
    display, path = Display(), tmp_path / "epochs.csv"
    watch = EpochWatch(path, display, skip=0, watched=("f1", "max"))  # type: ignore[arg-type]
    path.write_text("epoch,loss\n1,0.5\n")
    watch.look()
    (message,) = display.messages
    assert message.startswith("f1 is watched, but no epoch has a number for it")
