import os
import resource
from pathlib import Path

import pytest
import torch

from ctrkit.child.training.checkpoint import (
    differences,
    keep_as,
    load_checkpoint,
    remove_halves,
    save_checkpoint,
)
from ctrkit.core.errors import UsageError

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
    with pytest.raises(UsageError, match=r"last\.pt: damaged"):
        load_checkpoint(path)


def test_what_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "last.pt")
    torch.save({"weights": torch.zeros(1)}, tmp_path / "foreign.pt")
    with pytest.raises(UsageError, match="version None"):
        load_checkpoint(tmp_path / "foreign.pt")
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(UsageError, match="damaged, or not a checkpoint"):
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
    with pytest.raises(UsageError, match="x: is a builtins.function"):
        save_checkpoint(path, {"x": lambda: None})
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
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.pt", "last.pt", "previous.pt"]


def test_the_last_two_are_kept(tmp_path):
    for epoch in (1, 2, 3):
        save_checkpoint(tmp_path / "last.pt", {"epoch": epoch})
    assert load_checkpoint(tmp_path / "last.pt")["epoch"] == 3
    assert load_checkpoint(tmp_path / "previous.pt")["epoch"] == 2


def test_no_byte_can_change_unseen(tmp_path):
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"weights": torch.arange(300.0), "epoch": 3})
    content = path.read_bytes()
    refused = 0
    for place in range(0, len(content), 7):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])
        try:
            found = load_checkpoint(path)
        except UsageError:
            refused += 1
        else:  # padding, or a field of the archive that nobody reads
            assert torch.equal(found["weights"], torch.arange(300.0))
            assert found["epoch"] == 3
    assert refused > 1200 / 7  # at the least those of the weights


def test_checksums_are_written_also_where_a_users_loop_has_them_off(tmp_path):
    if not hasattr(torch.serialization, "set_crc32_options"):
        pytest.skip("this torch always writes them")
    torch.serialization.set_crc32_options(False)
    try:
        save_checkpoint(tmp_path / "last.pt", STATE)
    finally:
        torch.serialization.set_crc32_options(True)
    assert load_checkpoint(tmp_path / "last.pt")["pair"] == (1, "x")


def test_a_full_disk_costs_no_checkpoint(tmp_path):
    path = tmp_path / "last.pt"
    for epoch in (1, 2):
        save_checkpoint(path, {"epoch": epoch})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # as a full disk, in mid-write
    try:
        with pytest.raises(OSError):
            save_checkpoint(path, {"epoch": 3, "large": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert load_checkpoint(path)["epoch"] == 2
    assert load_checkpoint(tmp_path / "previous.pt")["epoch"] == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.pt", "previous.pt"]


def test_what_a_killed_writer_left_is_removed(tmp_path):
    save_checkpoint(tmp_path / "last.pt", STATE)
    for name in (".last.pt.x7y", ".previous.pt.aside", ".lock"):
        (tmp_path / name).write_bytes(b"half")
    remove_halves(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "last.pt"]


def test_all_that_differs_is_named():
    then = {"dropout": 0.3, "lr": 1e-3, "old": 1, "workload fingerprint": "a"}
    now = {"dropout": 0.1, "lr": 1e-3, "workload fingerprint": "b"}
    words = differences(then, now)
    assert "its dropout is 0.3, but this run's is 0.1" in words
    assert "its old is 1, but this run's is None" in words
    assert "fingerprint" not in words
    only = differences({**now, "workload fingerprint": "a"}, now)
    assert only == "its workload fingerprint is a, but this run's is b"
    assert differences(then, then) == ""
