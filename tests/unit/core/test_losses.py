"""Losses that are NaN or infinite: the first one, its value and its place."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from ctrkit.core.child_records import Measurement
from ctrkit.core.config import decode, encode
from ctrkit.core.files import read_json, write_json
from ctrkit.core.losses import BadLoss, bad_loss
from ctrkit.core.progress import ProgressWriter, Stage, read_progress


@pytest.mark.parametrize(
    ("value", "text"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf")]
)
def test_the_first_one_is_named_with_its_place(value: float, text: str) -> None:
    assert bad_loss([0.5, 0.4, value, math.nan]) == {
        "place": 3, "value": text, "counted": "step"
    }  # fmt: skip
    assert BadLoss(3, text, "backward pass").words == (
        f"the training loss is {text} at backward pass 3"
    )
    assert bad_loss([0.5, 0.4]) is None
    assert bad_loss([]) is None


def test_it_survives_the_way_through_a_file_that_is_valid_json(tmp_path: Path) -> None:
    measured = Measurement(kind="full", losses=[0.5, math.nan], bad_loss=BadLoss(2, "nan"))
    write_json(tmp_path / "m.json", encode(measured))
    assert "NaN" not in (tmp_path / "m.json").read_text()
    read = decode(Measurement, read_json(tmp_path / "m.json"), "m.json")
    assert (read.losses, read.bad_loss) == ([0.5, None], BadLoss(2, "nan"))


def test_the_progress_keeps_the_first_one_even_where_later_losses_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "progress.bin"
    with ProgressWriter(path) as writer:
        writer.enter(Stage.STEP, epoch=2)
        writer.step(1, loss=0.5)
        read = read_progress(path)
        assert read is not None
        assert (read.bad_epoch, read.loss) == (0, 0.5)
        writer.step(2, loss=math.inf)
        writer.step(3, loss=math.nan)
        writer.step(4, loss=0.4)
        writer.enter(Stage.STEP, epoch=3)
        read = read_progress(path)
    assert read is not None
    assert (read.bad_epoch, read.bad_step, read.bad_loss, read.loss) == (2, 2, math.inf, 0.4)
