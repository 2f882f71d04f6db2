"""`ctrkit doctor` as a user runs it: on MDAF, and on loaders that cannot be pickled or made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import Run, running_in

PICKLES_BADLY = """
import threading
from torch.utils.data import DataLoader, Dataset

LOCK = threading.Lock()

class Rows(Dataset):
    def __init__(self):
        self.transform = lambda row: row
    def __len__(self):
        return 100
    def __getitem__(self, index):
        raise SystemExit("doctor reads no rows")

def make_loader(*, workers, start_method, batch_size):
    return DataLoader(Rows(), batch_size, num_workers=workers)

def make_none(*, workers):
    raise RuntimeError("no such bucket")

def hang(*, workers):
    LOCK.acquire()
    LOCK.acquire()

def hang_at_once():
    LOCK.acquire()
    LOCK.acquire()
"""


def names(entries: list[dict[str, str]]) -> list[str]:
    return [entry["name"] for entry in entries]


def test_mdaf_is_sound_and_a_thousand_workers_are_refused(ctrkit: Run, small_store: Path) -> None:
    done = ctrkit("doctor", "--data", small_store, "--start-method", "spawn", "--workers", "0,1")
    assert done.returncode == 0, done.stderr
    assert "Time limits: how long each stage may make no progress" in done.stdout
    done = ctrkit(
        "doctor", "--data", small_store, "--workers", "0,100000", "--json", "--quiet",
    )  # fmt: skip
    assert done.returncode == 4, done.stderr
    assert "too little memory" in done.stderr
    found = json.loads(done.stdout)
    assert names(found["refused"]) == ["too little memory"]
    assert all("w100000" in cell for cell in found["refused"][0]["cells"])
    assert found["cells"] == 6
    assert found["workload"]["needs"]["row_bytes"] > 0
    assert found["machine"]["memory_bytes"] > 0
    assert len(found["budgets"]) > 5


def test_a_probe_refuses_for_memory_as_well(ctrkit: Run, small_store: Path) -> None:
    done = ctrkit(
        "probe", "--data", small_store, "--workers", "100000", "--loader", "rows", "--json",
    )  # fmt: skip
    assert done.returncode == 4, done.stderr
    (trial,) = json.loads(done.stdout)["trials"]
    assert trial["verdict"] == "refused"
    assert "more than 80 %" in trial["reason"]


def test_what_cannot_be_pickled_is_named(ctrkit: Run, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(PICKLES_BADLY)
    done = ctrkit("doctor", "--workload", "own.py:make_loader", "--workers", "1", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    (warning,) = found["warnings"]
    assert warning["name"] == "not picklable"
    assert "dataset.transform" in warning["text"]
    assert warning["references"]


@pytest.mark.parametrize(
    ("name", "limit", "words"),
    [
        ("make_none", "60s", "no such bucket (own.py, line 19)"),
        ("hang", "4s", "deadlock"),
        ("hang_at_once", "4s", "deadlock"),
    ],
)
def test_a_loader_that_raises_or_hangs_is_a_finding(
    ctrkit: Run, tmp_path: Path, name: str, limit: str, words: str
) -> None:
    (tmp_path / "own.py").write_text(PICKLES_BADLY)
    workload = ("--workload", f"own.py:{name}", "--workers", "0")
    done = ctrkit("doctor", *workload, "--stall-timeout", limit, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert names(found["warnings"]) == ["loader not examined"]
    assert words in found["warnings"][0]["text"]
    assert running_in(tmp_path) == []


def test_bad_input_is_exit_code_2(ctrkit: Run, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import no_such_module\n")
    done = ctrkit("doctor", "--workload", "broken.py:make_loader")
    assert done.returncode == 2
    assert "no_such_module" in done.stderr
    assert "Traceback" not in done.stderr
