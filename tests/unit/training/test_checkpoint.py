import os
from pathlib import Path

import pytest
import torch

from ctrkit.errors import UsageError
from ctrkit.training.checkpoint import keep_as, load_checkpoint, save_checkpoint

STATE = {"weights": torch.arange(1000.0), "rows": [{"epoch": 1, "auc": None}], "pair": (1, "x")}


def test_a_state_comes_back(tmp_path):
    path = tmp_path / "checkpoints" / "last.pt"
    save_checkpoint(path, STATE)
    found = load_checkpoint(path)
    assert torch.equal(found["weights"], STATE["weights"])
    assert found["rows"] == STATE["rows"]
    assert found["pair"] == (1, "x")
    assert [p.name for p in path.parent.iterdir()] == ["last.pt"]


@pytest.mark.parametrize("kept_share", [0.0, 0.3, 0.9])
def test_a_truncated_file_is_named(tmp_path, kept_share):
    path = tmp_path / "last.pt"
    save_checkpoint(path, STATE)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept_share)])
    with pytest.raises(UsageError, match=r"last\.pt: truncated"):
        load_checkpoint(path)


def test_what_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "last.pt")
    torch.save({"weights": torch.zeros(1)}, tmp_path / "foreign.pt")
    with pytest.raises(UsageError, match="version None"):
        load_checkpoint(tmp_path / "foreign.pt")
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(UsageError, match="truncated or no checkpoint"):
        load_checkpoint(tmp_path / "text.pt")


class _Evil:
    def __reduce__(self):
        return os.mkdir, ("must-not-exist",)


def test_code_in_a_checkpoint_is_never_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"version": 1, "x": _Evil()}, tmp_path / "evil.pt")
    with pytest.raises(UsageError):
        load_checkpoint(tmp_path / "evil.pt")
    assert not Path("must-not-exist").exists()


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "last.pt"
    save_checkpoint(path, STATE)
    before = path.read_bytes()
    with pytest.raises(AttributeError):
        save_checkpoint(path, {"x": lambda: None})  # cannot be pickled
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


def test_the_best_one_outlives_the_next_last_one(tmp_path, monkeypatch):
    path = tmp_path / "last.pt"
    for epoch in (1, 2):
        save_checkpoint(path, {"epoch": epoch})
        if epoch == 1:
            keep_as(path, "best.pt")
    assert load_checkpoint(tmp_path / "best.pt")["epoch"] == 1

    def no_links(*_):
        raise OSError("this disk has no hard links")

    monkeypatch.setattr(os, "link", no_links)
    keep_as(path, "best.pt")
    assert load_checkpoint(tmp_path / "best.pt")["epoch"] == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.pt", "last.pt"]
