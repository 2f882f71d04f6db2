"""Temporary folders that a killed process left are removed, and no others."""

import json
import os
import signal
import subprocess
import sys

import pytest

from ctrkit.core.environment import began_unix_s
from ctrkit.core.owned_folders import owned_folder, remove_left_over
from ctrkit.core.place import this_place

KILLED = """
import os, signal, sys, tempfile
tempfile.tempdir = sys.argv[1]
from ctrkit.core.owned_folders import owned_folder
with owned_folder("ctrkit-test-") as folder:
    (folder / "deep").mkdir()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_removed_at_the_next_start(tmp_path):
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert remove_left_over("ctrkit-test-", tmp_path) == [left]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_stays_and_is_removed_by_its_owner(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with owned_folder("ctrkit-test-") as folder:
        assert remove_left_over("ctrkit-test-") == []
        assert folder.is_dir()
    assert not folder.exists()


OWN = {"pid": os.getpid(), "began_unix_s": began_unix_s(os.getpid()), "place": this_place()}
GONE = OWN | {"pid": 2**22 + 17}


@pytest.mark.parametrize(
    ("owner", "goes"),
    [
        (GONE, True),
        (OWN, False),
        (OWN | {"began_unix_s": 1000.0}, True),  # the id is of another process now
        (GONE | {"place": this_place() | {"boot": "before"}}, True),
        (GONE | {"place": this_place() | {"host": "another"}}, False),
        (GONE | {"place": this_place() | {"processes": "a container"}}, False),
        (GONE | {"place": {}}, False),
        ({"pid": "x"}, False),
        ([], False),
        (None, False),
    ],
)
def test_only_what_is_known_to_be_left_goes(tmp_path, owner, goes):
    folder = tmp_path / "ctrkit-test-abc"
    folder.mkdir()
    if owner is not None:
        (folder / "owner.json").write_text(json.dumps(owner))
    assert (remove_left_over("ctrkit-test-", tmp_path) == [folder]) is goes
    assert folder.exists() is not goes


def test_links_other_names_and_damaged_names_stay(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "owner.json").write_text(json.dumps(GONE))
    (tmp_path / "ctrkit-test-link").symlink_to(elsewhere)
    damaged = tmp_path / "ctrkit-test-damaged"
    damaged.mkdir()
    (damaged / "owner.json").write_text("{")
    assert remove_left_over("ctrkit-test-", tmp_path) == []
    assert elsewhere.is_dir()
    assert damaged.is_dir()
    assert remove_left_over("ctrkit-test-", tmp_path / "missing") == []
