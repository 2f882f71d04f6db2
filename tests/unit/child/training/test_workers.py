"""DataLoader workers seen from inside: what they write, and nothing else changes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ctrkit.core.lifeline import FOLDER_VARIABLE

SCRIPT = """
import json, os, random, signal, sys
import torch
from torch.utils.data import DataLoader, Dataset
from ctrkit.core.progress import read_workers
from ctrkit.child.training.workers import dead_workers, watch_workers


class Rows(Dataset):
    def __init__(self, fatal):
        self.fatal = fatal

    def __len__(self):
        return 24

    def __getitem__(self, index):
        if index == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return index, random.random(), torch.rand(()).item()


def batches(method, fatal=None):
    loader = DataLoader(
        Rows(fatal), batch_size=4, num_workers=2, multiprocessing_context=method, shuffle=True,
        generator=torch.Generator().manual_seed(3), persistent_workers=persistent,
    )
    found, seen = [], []
    for epoch in range(2):
        for batch in loader:
            found.append([column.tolist() for column in batch])
            seen += [(one.worker, one.stage.name) for one in read_workers(folder)]
    return found, seen


if __name__ == "__main__":
    method, persistent = sys.argv[1], sys.argv[2] == "persistent"
    folder = os.environ["CTRKIT_CHILD_FOLDER"]
    stock, _ = batches(method)
    watch_workers()
    watched, seen = batches(method)
    left = len(read_workers(folder))
    dead = []
    try:
        batches(method, fatal=7)
    except (RuntimeError, OSError, EOFError) as error:  # all three mean the same death
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        dead = [(one.worker, one.exit_code) for one in dead_workers(error) if one.exit_code]
    print(json.dumps({"same": stock == watched, "seen": seen, "left": left, "dead": dead}))
"""


# a spawned worker imports torch, which costs more than all else here: once, for both epochs
@pytest.mark.parametrize(
    "how", ["fork", "fork persistent", "spawn persistent", "forkserver persistent"]
)
def test_workers_tell_what_they_do_and_do_the_same(tmp_path: Path, how: str) -> None:
    script = tmp_path / "main.py"
    script.write_text(SCRIPT)
    words = f"{how} anew".split()[:2]
    done = subprocess.run(
        [sys.executable, str(script), *words], capture_output=True, text=True, timeout=120,
        env=os.environ | {FOLDER_VARIABLE: str(tmp_path), "OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert told["same"], "order, values and random streams are those of stock workers"
    assert {worker for worker, _ in told["seen"]} == {0, 1}
    assert {stage for _, stage in told["seen"]} & {"FETCHING", "IDLE"}
    assert told["left"] == 2  # those of earlier epochs are forgotten
    assert [code for _, code in told["dead"]] == [-9]
    assert {worker for worker, _ in told["dead"]} <= {0, 1}
