"""Checkpoints read without torch."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from ctrkit.child.training.checkpoint import load_checkpoint, save_checkpoint
from ctrkit.child.training.seeding import rng_state
from ctrkit.commands.usable_checkpoint import (
    SavedPosition,
    inspect_checkpoint,
    recover,
    usable_checkpoint,
)
from ctrkit.core.errors import UsageError


def save(path: Path, epoch: int, batch: int) -> None:
    model = torch.nn.LSTM(8, 8)
    adam = torch.optim.Adam(model.parameters())
    model(torch.randn(3, 8))[0].sum().backward()
    adam.step()
    save_checkpoint(path, {
        "identity": {"workload": "w"}, "code": {"torch": "2.0"}, "epoch_rng": None,
        "rng": rng_state("cpu"),
        "position": {"epoch": epoch, "batch": batch, "history": [{"val_auc": float("nan")}]},
        "task": {"model": model.state_dict(), "adam": adam.state_dict(), "half": torch.float16},
    })  # fmt: skip


def test_the_position_is_read_as_it_was_written(tmp_path: Path) -> None:
    save(tmp_path / "last.pt", 3, 17)
    saved = inspect_checkpoint(tmp_path / "last.pt")
    assert saved is not None
    assert saved.position == SavedPosition(epoch=3, batch=17)
    assert usable_checkpoint(tmp_path) == recover(tmp_path) == saved


def test_nothing_that_a_checkpoint_names_is_run(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str, ...]]:
            return os.mkdir, (str(tmp_path / "made"),)

    torch.save({"bad": Hostile(), "position": {"epoch": 1, "batch": 2}}, tmp_path / "last.pt")
    saved = inspect_checkpoint(tmp_path / "last.pt")
    assert saved is not None
    assert saved.position == SavedPosition(epoch=1, batch=2)
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
    assert inspect_checkpoint(path) is None


@pytest.mark.parametrize("last", ["damaged", "missing"])
@pytest.mark.parametrize("previous", ["whole", "damaged", "missing"])
def test_the_newest_whole_one_takes_the_place_of_the_last(
    tmp_path: Path, last: str, previous: str
) -> None:
    save(tmp_path / "best.pt", 2, 0)
    if previous != "missing":
        save(tmp_path / "previous.pt", 3, 10)
    if previous == "damaged":
        (tmp_path / "previous.pt").write_bytes(b"half a check")
    (tmp_path / "last.pt").unlink(missing_ok=True)  # a second save kept it
    if last == "damaged":
        (tmp_path / "last.pt").write_bytes(b"half a check")
    name, position = ("previous.pt", SavedPosition(3, 10)) if previous == "whole" else (
        "best.pt", SavedPosition(2, 0))  # fmt: skip
    found = recover(tmp_path)
    assert found is not None
    assert found.position == position
    assert found.code == {"torch": "2.0"}
    assert f"last.pt is {last}" in found.problem
    assert f"continuing from {name}" in found.problem
    loaded = load_checkpoint(tmp_path / "last.pt")["position"]
    assert (loaded["epoch"], loaded["batch"]) == (position.epoch, position.batch)
    assert (tmp_path / "last.pt.damaged").exists() == (last == "damaged")
    assert (tmp_path / name).is_file()
    again = recover(tmp_path)
    assert again is not None
    assert (again.position, again.problem) == (position, "")


def test_a_disk_without_links_gets_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError("this disk has no hard links")

    save(tmp_path / "best.pt", 2, 0)
    monkeypatch.setattr(os, "link", no_links)
    saved = usable_checkpoint(tmp_path)
    assert saved is not None
    assert saved.position == SavedPosition(epoch=2, batch=0)
    assert (tmp_path / "last.pt").stat().st_mtime == (tmp_path / "best.pt").stat().st_mtime


def test_one_of_an_older_ctrkit_has_no_versions(tmp_path: Path) -> None:
    torch.save({"position": {"epoch": 1, "batch": 2}}, tmp_path / "last.pt")
    saved = inspect_checkpoint(tmp_path / "last.pt")
    assert saved is not None
    assert (saved.position, saved.code) == (SavedPosition(1, 2), {})


def test_where_all_are_damaged_nothing_is_touched(tmp_path: Path) -> None:
    (tmp_path / "last.pt").write_bytes(b"half a check")
    (tmp_path / "best.pt").write_bytes(b"half")
    with pytest.raises(UsageError, match=r"every checkpoint is damaged \(last.pt, best.pt\)"):
        recover(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.pt", "last.pt"]


def test_without_any_the_run_begins_anew(tmp_path: Path) -> None:
    assert usable_checkpoint(tmp_path) is None
    (tmp_path / "last.pt").write_bytes(b"half a check")
    assert usable_checkpoint(tmp_path) is None
    assert not (tmp_path / "last.pt").exists()
    (tmp_path / "best.pt").write_bytes(b"half a check")
    assert usable_checkpoint(tmp_path) is None
