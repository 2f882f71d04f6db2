"""A loss that is NaN or infinite is reported once, and noted as an incident."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from ctrkit.commands.loss_watch import LossWatch
from ctrkit.core.config import WorkloadSpec, make_cell
from ctrkit.core.progress import Progress, Stage
from ctrkit.core.runs import RunFolder
from ctrkit.report.incidents import incidents_section, summary_words


def at(step: int, bad_step: int = 0, bad_loss: float = 0.0) -> Progress:
    return Progress(
        pid=1, stage=Stage.STEP, epoch=1, step=step, steps=10, rows=0, writes=step, written_s=0.0,
        wait_s=0.0, loss=0.1, bad_epoch=int(bad_step > 0), bad_step=bad_step, bad_loss=bad_loss,
    )  # fmt: skip


def test_it_is_told_once_with_its_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTRKIT_HOME", str(tmp_path / "home"))
    run = RunFolder.create("train", ["train"], WorkloadSpec(), tmp_path / "run")
    said: list[str] = []
    watch = LossWatch(run, said.append)
    for progress in (None, at(1), at(3, 2, math.nan), at(4, 2, math.nan)):
        watch.look(progress, make_cell(threads=1))
    assert len(said) == 1
    assert said[0].startswith(
        "the training loss is nan at step 2 of epoch 1; the run continues, but"
    )
    (incident,) = run.incidents()
    assert (incident["verdict"], incident["epoch"], incident["step"]) == ("loss not finite", 1, 2)
    assert summary_words(run.incidents()) == ""
    assert incidents_section(run.incidents()).blocks
