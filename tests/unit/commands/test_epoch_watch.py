"""Epochs are shown once, and again where they are trained again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ctrkit.commands.epoch_watch import EpochWatch


class Display:
    def __init__(self) -> None:
        self.shown: list[int] = []

    def epoch_done(self, row: dict[str, Any]) -> None:
        self.shown.append(row["epoch"])


def test_epochs_that_are_trained_again_are_shown_again(tmp_path: Path) -> None:
    display = Display()
    watch = EpochWatch(tmp_path / "epochs.csv", display, skip=0)  # type: ignore[arg-type]
    for rows in (0, 1, 2, 2, 1, 2):
        lines = ["epoch,val_auc", *(f"{epoch}," for epoch in range(1, rows + 1))]
        (tmp_path / "epochs.csv").write_text("\n".join(lines) + "\n")
        watch.look()
    assert display.shown == [1, 2, 2]
