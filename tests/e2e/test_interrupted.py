"""An interrupted run and probe: what is kept, what continues, and no process is left."""

from __future__ import annotations

import csv
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from support import COMMAND, Run, alive

from ctrkit.core.progress import read_progress
from ctrkit.core.runs import RunFolder

BST = ["--batch-size", "256", "--set", "history_length=10", "--set", "model=bst", "--threads", "1"]
LOADER = """
import time
from torch.utils.data import DataLoader, Dataset

class Rows(Dataset):
    def __len__(self):
        return 4000
    def __getitem__(self, index):
        time.sleep(0.0002)
        return float(index)

def make_loader(*, workers):
    return DataLoader(Rows(), 64, num_workers=workers)
"""


def family(pid: int) -> list[int]:
    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def start(tmp_path: Path, *arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [COMMAND, *map(str, arguments)],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


def wait_for(
    condition: Callable[[], object], process: subprocess.Popen[str], timeout_s: float = 120
) -> None:
    """Often enough to see a run of a second while it goes."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < end
        time.sleep(0.02)


def test_an_interrupted_run_goes_on_and_ends_as_if_it_had_not_been(
    ctrkit: Run, tmp_path: Path, small_store: Path
) -> None:
    common = ["--data", small_store, *BST]
    whole = ctrkit("train", *common, "--epochs", "2", "--out", "whole", "--quiet")
    assert whole.returncode == 0, whole.stderr

    def is_stepping() -> bool:
        progress = read_progress(tmp_path / "cut" / "child" / "progress.bin")
        return progress is not None and progress.step >= 2

    process = start(tmp_path, "train", *common, "--epochs", "2", "--out", "cut")
    wait_for(is_stepping, process)
    children = family(process.pid)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "ctrkit train --resume" in stderr
    assert not [pid for pid in children if alive(pid)]

    # another loader on the way: the machine's configuration never changes the experiment
    done = ctrkit("train", "--resume", "cut", "--loader", "batches", "--quiet")
    assert done.returncode == 0, done.stderr

    def epochs(name: str) -> list[dict[str, str]]:
        with open(tmp_path / name / "epochs.csv") as file:
            return [{k: v for k, v in row.items() if k != "wall_s"} for row in csv.DictReader(file)]

    assert epochs("cut") == epochs("whole")
    done = ctrkit("train", "--resume", "cut")
    assert done.returncode == 0
    assert "already finished" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_probe_keeps_what_it_measured_and_leaves_no_process(
    tmp_path: Path, number: signal.Signals
) -> None:
    (tmp_path / "loader.py").write_text(LOADER)
    workload = ("--workload", "loader.py:make_loader", "--workers", "0,2")
    process = start(tmp_path, "probe", *workload, "--out", "run")
    wait_for((tmp_path / "run" / "trials.parquet").is_file, process)
    time.sleep(1)
    wait_for(lambda: family(process.pid), process)
    children = family(process.pid)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "interrupted" in stderr
    assert not [pid for pid in children if alive(pid)]

    run = RunFolder.open(tmp_path / "run")
    assert run.info.status == "interrupted"
    assert any(record.verdict == "ok" for record in run.trials())
