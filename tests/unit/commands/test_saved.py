"""Checkpoints read without torch."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from ctrkit.commands.saved import Position, saved_position, usable_checkpoint
from ctrkit.training.checkpoint import load_checkpoint, save_checkpoint
from ctrkit.training.seeding import rng_state


def save(path: Path, epoch: int, batch: int) -> None:
    model = torch.nn.LSTM(8, 8)
    adam = torch.optim.Adam(model.parameters())
    model(torch.randn(3, 8))[0].sum().backward()
    adam.step()
    save_checkpoint(path, {
        "identity": {"workload": "w"}, "rng": rng_state("cpu"), "epoch_rng": None,
        "position": {"epoch": epoch, "batch": batch, "history": [{"val_auc": float("nan")}]},
        "task": {"model": model.state_dict(), "adam": adam.state_dict(), "half": torch.float16},
    })  # fmt: skip


def test_the_position_is_read_as_it_was_written(tmp_path: Path) -> None:
    save(tmp_path / "last.pt", 3, 17)
    assert saved_position(tmp_path / "last.pt") == Position(epoch=3, batch=17)
    assert usable_checkpoint(tmp_path) == Position(epoch=3, batch=17)


def test_nothing_that_a_checkpoint_names_is_run(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str, ...]]:
            return os.mkdir, (str(tmp_path / "made"),)

    torch.save({"bad": Hostile(), "position": {"epoch": 1, "batch": 2}}, tmp_path / "last.pt")
    assert saved_position(tmp_path / "last.pt") == Position(epoch=1, batch=2)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "one bit", "other"])
def test_a_damaged_one_is_no_position(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "last.pt"
    save(path, 3, 17)
    whole = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "other":
        torch.save({"a": 1}, path)
    else:
        flipped = bytearray(whole)
        flipped[len(whole) // 2] ^= 1
        kept = {"empty": b"", "truncated": whole[:-100], "one bit": bytes(flipped)}
        path.write_bytes(kept[damage])
    assert saved_position(path) is None


def test_the_best_one_takes_the_place_of_a_damaged_last_one(tmp_path: Path) -> None:
    save(tmp_path / "best.pt", 2, 0)
    (tmp_path / "last.pt").write_bytes(b"half a check")
    assert usable_checkpoint(tmp_path) == Position(epoch=2, batch=0)
    assert load_checkpoint(tmp_path / "last.pt")["position"]["epoch"] == 2
    assert (tmp_path / "last.pt.damaged").read_bytes() == b"half a check"
    assert (tmp_path / "best.pt").is_file()


def test_without_any_the_run_begins_anew(tmp_path: Path) -> None:
    assert usable_checkpoint(tmp_path) is None
    (tmp_path / "last.pt").write_bytes(b"half a check")
    assert usable_checkpoint(tmp_path) is None
    assert not (tmp_path / "last.pt").exists()
