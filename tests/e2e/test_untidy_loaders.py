"""Loaders as people have them: wrong lengths, repeated rows, epochs without a batch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support import Run

UNTIDY = """
import itertools, time
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

class Stream(IterableDataset):
    # every worker reads all of it
    def __iter__(self):
        for row in range(1600):
            if row % 32 == 0:
                time.sleep(0.004)
            yield torch.full((4,), float(row))

def repeats(*, workers, start_method, batch_size):
    return DataLoader(Stream(), batch_size, num_workers=workers,
                      multiprocessing_context=start_method if workers else None)

class Lies:
    # its length is in rows
    def __len__(self):
        return 6400
    def __iter__(self):
        for number in range(100):
            time.sleep(0.003)
            yield torch.full((64, 4), float(number))

def lies():
    return Lies()

class Once:
    # a file that is read to its end
    def __init__(self):
        self.batches = iter([torch.full((8, 4), float(number)) for number in range(60)])
    def __iter__(self):
        for batch in self.batches:
            time.sleep(0.003)
            yield batch

def once():
    return Once()

class Rows(Dataset):
    def __len__(self):
        return 640
    def __getitem__(self, index):
        return torch.tensor(float(index))

def takes_nothing():
    return DataLoader(Rows(), batch_size=32, num_workers=1, multiprocessing_context="fork")

def heeds_nothing(*, workers, batch_size):
    return [torch.rand(32, 4) for _ in range(200)]

class Few(Dataset):
    def __len__(self):
        return 90
    def __getitem__(self, index):
        return torch.tensor(float(index))

def few(*, workers, batch_size):
    return DataLoader(Few(), batch_size, drop_last=True, num_workers=workers)
"""


@pytest.fixture
def untidy(tmp_path: Path) -> Path:
    path = tmp_path / "untidy.py"
    path.write_text(UNTIDY)
    return path


def findings(document: dict[str, Any]) -> str:
    return " ".join(finding["text"] for finding in document["findings"])


@pytest.mark.usefixtures("untidy")
def test_a_cell_whose_workers_repeat_rows_is_named_and_not_recommended(ctrkit: Run) -> None:
    done = ctrkit(
        "probe", "--workload", "untidy.py:repeats", "--workers", "0,2", "--start-method", "fork",
        "--batch-size", "32", "--set", "epochs=2", "--budget", "40s", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["cell"]["workers"] == 0
    assert "100 batches (3,200 rows), but it has 50 batches (1,600 rows)" in findings(found)
    flagged = [t["cell"]["workers"] for t in found["trials"] if "other epoch" in t["flags"]]
    assert set(flagged) == {2}


@pytest.mark.usefixtures("untidy")
def test_a_counted_epoch_overrides_a_length_in_rows(ctrkit: Run) -> None:
    done = ctrkit(
        "probe", "--workload", "untidy.py:lies", "--set", "epochs=3", "--budget", "15s", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["projected_epoch_s"] < 20
    assert "100 batches (6,400 rows), counted to its end" in findings(found)
    assert "6,400 batches: len() counts rows" in findings(found)


@pytest.mark.usefixtures("untidy")
@pytest.mark.parametrize(("command", "code"), [("probe", 2), ("train", 2)])
def test_without_a_batch_the_largest_batch_size_is_named(
    ctrkit: Run, command: str, code: int
) -> None:
    done = ctrkit(command, "--workload", "untidy.py:few", "--workers", "0", "--batch-size", "256")
    assert done.returncode == code, done.stderr
    assert "drop_last leaves out an incomplete batch, and there are 90 rows" in done.stderr
    assert "give --batch-size 90 or less" in done.stderr
    assert "longer --budget" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_loader_that_can_be_read_once_is_projected_for_one_epoch(
    ctrkit: Run, untidy: Path
) -> None:
    target = f"{untidy.name}:once"
    done = ctrkit(
        "probe", "--workload", target, "--epochs", "5", "--budget", "20s", "--out", "p", "--json"
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert "ctrkit projects one epoch, not 5" in document["findings"][0]["text"]
    assert document["projected_total_s"] < 3 * document["projected_epoch_s"] + 30
    assert "one epoch only" in document["flags"]
    assert document["options"] == []
    shown = " ".join(ctrkit("report", "p").stdout.split())
    assert "one epoch only" in shown
    done = ctrkit(
        "train", "--config", "p/recommendation.json", "--workload", target, "--epochs", "5",
        "--out", "t",
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    before, _, after = done.stderr.partition("run folder")
    assert "WARNING: there is no epoch 2" in before
    assert "Epoch 1 is saved: train with --epochs 1" in after
    done = ctrkit("train", "--workload", target, "--epochs", "1", "--out", "one")
    assert done.returncode == 0, done.stderr


def test_axes_that_a_loader_does_not_take_are_nowhere(ctrkit: Run, untidy: Path) -> None:
    target = f"{untidy.name}:takes_nothing"
    done = ctrkit("probe", "--workload", target, "--epochs", "2", "--budget", "20s", "--out", "p")
    assert done.returncode == 0, done.stderr
    shown = " ".join((done.stdout + done.stderr).split())
    for unsaid in ("2,048", "2048", "no workers", "w0", "num_workers=0"):
        assert unsaid not in shown.replace("evidence/", ""), unsaid
    document = json.loads((untidy.parent / "p" / "recommendation.json").read_text())
    assert document["dataloader_kwargs"] == {}
    assert {"batch_size", "workers"} <= set(document["cell"]["unheeded"])
    done = ctrkit("train", "--config", "p/recommendation.json", "--workload", target,
                  "--epochs", "1", "--out", "t")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "2048" not in done.stderr
    assert "2,048" not in ctrkit("report", "t").stdout


def test_axes_that_a_loader_takes_and_does_not_heed_are_told(ctrkit: Run, untidy: Path) -> None:
    target = f"{untidy.name}:heeds_nothing"
    done = ctrkit("probe", "--workload", target, "--workers", "0,1", "--batch-size", "32",
                  "--epochs", "2", "--budget", "30s", "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "let workers read ahead" not in findings(json.loads(done.stdout))
