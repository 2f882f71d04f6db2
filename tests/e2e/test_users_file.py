"""A user's file as it comes: an odd name, its own command line, ragged rows, its own order."""

from __future__ import annotations

import csv
from pathlib import Path

from support import Run

FILE = """
import argparse
import random
import torch
from torch.utils.data import DataLoader, Dataset

parser = argparse.ArgumentParser()
parser.add_argument("data", nargs="?", default="none")
options = parser.parse_args()

class Clicks(Dataset):
    def __len__(self):
        return 150
    def __getitem__(self, index):
        assert options.data == "none"
        return torch.zeros(1 + index % 7), index % 2

class Batches:
    epoch = 0
    def set_epoch(self, epoch):
        self.epoch = epoch
    def __len__(self):
        return 3
    def __iter__(self):
        order = list(range(150))
        random.Random(self.epoch).shuffle(order)
        with open("order.txt", "a") as log:
            log.write(f"{self.epoch} {order[:3]}\\n")
        yield from (order[:64], order[64:128], order[128:])

def ragged(rows):
    return {"history": [row for row, _ in rows], "label": torch.tensor([y for _, y in rows])}

def make_loader(*, workers, start_method, batch_size):
    return DataLoader(Clicks(), batch_sampler=Batches(), collate_fn=ragged, num_workers=workers,
                      multiprocessing_context=start_method if workers else None)

def make_both(*, workers):
    return DataLoader(Clicks(), 64), DataLoader(Clicks(), 64)
"""


def test_it_is_run_as_it_is(ctrkit: Run, tmp_path: Path) -> None:
    (tmp_path / "2024 click-loader.py").write_text(FILE)
    (tmp_path / "secrets.py").write_text("raise SystemExit('this hides a module of Python')")
    done = ctrkit(
        "train", "--workload", "2024 click-loader.py:make_loader", "--workers", "1",
        "--start-method", "spawn", "--batch-size", "64", "--epochs", "2", "--out", "run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "run" / "epochs.csv") as file:
        assert [row["rows"] for row in csv.DictReader(file)] == ["150", "150"]
    orders = (tmp_path / "order.txt").read_text().splitlines()
    assert [order.split()[0] for order in orders] == ["1", "2"]
    assert orders[0].split()[1:] != orders[1].split()[1:]


def test_what_is_no_loader_is_refused_with_what_to_return(ctrkit: Run, tmp_path: Path) -> None:
    (tmp_path / "both.py").write_text(FILE)
    done = ctrkit("train", "--workload", "both.py:make_both", "--epochs", "1", "--out", "run")
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert "both.py:make_both returned a tuple of 2 DataLoaders: return one alone" in last
    done = ctrkit("doctor", "--workload", "both.py:make_both", "--workers", "0")
    assert done.returncode == 4, done.stderr
    assert "tuple of 2 DataLoaders" in " ".join(done.stdout.split())
