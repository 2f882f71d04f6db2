"""How batches were made: rings of workers, and how they are matched with deliveries."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ctrkit.child.training.stamps import (
    RING,
    STAMPS_VARIABLE,
    BatchStamp,
    StampWriter,
    matched,
    read_rings,
    ring_path,
    stamped_collate,
)
from ctrkit.core.lifeline import FOLDER_VARIABLE

SCRIPT = """
import json, os, random, sys, time
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset
from ctrkit.child.training.stamps import matched, read_rings
from ctrkit.child.training.workers import watch_workers


class Rows(Dataset):
    def __len__(self):
        return 24

    def __getitem__(self, index):
        time.sleep(0.002)
        return index, random.random(), torch.rand(()).item()


class Stream(IterableDataset):
    def __iter__(self):
        # the second worker ends long before the first
        last = 12 if torch.utils.data.get_worker_info().id == 0 else 4
        return iter(range(last))


def run(loader):
    since_s, found, delivered = time.monotonic(), [], []
    for batch in loader:
        delivered.append(time.monotonic())
        columns = batch if isinstance(batch, list) else [batch]
        found.append([column.tolist() for column in columns])
    stamps = read_rings(folder, since_s)
    return found, stamps, matched(stamps, delivered)


if __name__ == "__main__":
    method, folder = sys.argv[1], os.environ["CTRKIT_CHILD_FOLDER"]

    def rows():
        return DataLoader(
            Rows(), batch_size=4, num_workers=2, multiprocessing_context=method, shuffle=True,
            generator=torch.Generator().manual_seed(3), persistent_workers=True,
        )

    stock = rows()
    stock = [run(stock)[0] for _ in range(2)]
    watch_workers()
    loader = rows()
    stamped, workers, ordered = [], [], []
    for _ in range(2):
        found, _, fits = run(loader)
        stamped.append(found)
        workers += [one.worker for one in fits]
        ordered += [one.start_s < one.fetched_s <= one.made_s <= one.sent_s for one in fits]
    # how a worker was started is nothing to its end
    stream = DataLoader(Stream(), batch_size=2, num_workers=2, multiprocessing_context="fork")
    _, kept, fits = run(stream)
    print(json.dumps({
        "same": stock == stamped, "workers": workers, "ordered": ordered, "kept": len(kept),
        "stream": len(fits),
    }))
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_stamp_their_batches_and_change_nothing(tmp_path: Path, method: str) -> None:
    script = tmp_path / "main.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script), method], capture_output=True, text=True, timeout=120,
        env=os.environ | {
            FOLDER_VARIABLE: str(tmp_path), STAMPS_VARIABLE: "1", "OMP_NUM_THREADS": "1",
        },
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert told["same"], "order, values and random streams are those of stock workers"
    assert told["workers"] == [0, 1] * 6, "in turn, in both epochs of persistent workers"
    assert all(told["ordered"])
    assert told["kept"] > 0
    assert told["stream"] == 0, "a worker of an iterable data set that ended leaves a gap"


def stamp(batch: int, made_s: float, worker: int = 0) -> BatchStamp:
    return BatchStamp(
        worker=worker, batch=batch, start_s=made_s - 1, fetched_s=made_s, made_s=made_s,
        sent_s=made_s,
    )  # fmt: skip


def test_batches_made_ahead_are_left_over() -> None:
    kept = [stamp(0, 1.0), stamp(1, 2.0), stamp(2, 3.0)]
    assert matched(kept, [1.5, 2.5]) == kept[:2]


@pytest.mark.parametrize(
    "kept",
    [
        [stamp(0, 1.0)],
        [stamp(0, 1.0), stamp(2, 1.0)],
        [stamp(0, 1.0), stamp(1, 2.0), stamp(1, 1.0)],
        [stamp(0, 1.0), stamp(1, 9.0)],
    ],
    ids=["too few", "a gap", "two loaders", "delivered before it was made"],
)
def test_what_cannot_be_matched_is_left_out_whole(kept: list[BatchStamp]) -> None:
    assert matched(kept, [1.5, 2.5]) == []


def test_a_ring_keeps_the_newest(tmp_path: Path) -> None:
    writer = StampWriter(tmp_path, worker=3)
    for batch in range(RING + 2):
        writer.started(batch)
        writer.fetched()
        writer.made(batch)
        writer.sent(batch)
    kept = read_rings(tmp_path, since_s=0.0)
    assert len(kept) == RING
    assert [kept[0].batch, kept[-1].batch] == [2, RING + 1]
    assert all(one.worker == 3 and one.made_s <= one.sent_s for one in kept)
    assert read_rings(tmp_path, since_s=kept[-1].start_s + 1) == []


def test_a_batch_not_begun_is_not_stamped(tmp_path: Path) -> None:
    writer = StampWriter(tmp_path, worker=0)
    writer.made(0)
    writer.sent(0)
    assert ring_path(tmp_path, os.getpid()).is_file()
    assert read_rings(tmp_path, since_s=0.0) == []


def test_collate_is_told_of_and_otherwise_the_same() -> None:
    told: list[str] = []

    def collate(samples: Any) -> Any:
        if not samples:
            raise ValueError("empty")
        return samples[::-1]

    stamped = stamped_collate(collate, lambda: told.append("now"))
    assert stamped([1, 2]) == [2, 1]
    with pytest.raises(ValueError, match="empty"):
        stamped([])
    assert told == ["now", "now"]
