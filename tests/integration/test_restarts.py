"""Real runs that hang or lose a process finish by themselves, and every row counts once."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from support import COMMAND, left_of

from ctrkit.core.progress import read_progress
from ctrkit.ctr.data.synthetic import generate_store

ENDINGS = Path(__file__).parent / "children" / "endings.py"
ROWS = 1000
WORKERS = ("--workers", "2", "--start-method", "fork")


def start(folder: Path, *arguments: str | Path, log: str) -> subprocess.Popen[bytes]:
    with open(folder / f"{log}.log", "wb") as file:
        return subprocess.Popen(
            [COMMAND, "train", *map(str, arguments)],
            cwd=folder, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
            env=os.environ | {"CTRKIT_HOME": str(folder / "home")},
        )  # fmt: skip


@dataclass(frozen=True)
class Done:
    """A run that is over."""

    path: Path
    exit_code: int
    log: str

    @property
    def epochs(self) -> list[dict[str, str]]:
        """The rows of `epochs.csv` without their times."""
        with open(self.path / "epochs.csv", newline="") as file:
            return [{k: v for k, v in row.items() if k != "wall_s"} for row in csv.DictReader(file)]

    @property
    def incidents(self) -> list[dict[str, Any]]:
        text = (self.path / "incidents.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]

    @property
    def info(self) -> dict[str, Any]:
        return dict(json.loads((self.path / "run.json").read_text()))

    def report(self) -> str:
        done = subprocess.run(
            [COMMAND, "report", self.path], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return " ".join(done.stdout.split())


def finish(folder: Path, name: str, process: subprocess.Popen[bytes]) -> Done:
    exit_code = process.wait(timeout=150)
    return Done(folder / name, exit_code, (folder / f"{name}.log").read_text())


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Done]]:
    """All of them at once: what hangs burns nothing."""
    folder = tmp_path_factory.mktemp("runs")
    commands = {
        name: ("--workload", f"{ENDINGS}:{name}", *options)
        for name, options in (
            ("deadlocks", (*WORKERS, "--stall-timeout", "8s")),
            ("stops_a_worker", (*WORKERS, "--stall-timeout", "8s")),
            ("loses_a_worker", WORKERS),
            ("loses_the_main_process", ("--batch-size", "100")),
            ("SeesRows", (*WORKERS, "--checkpoint-every", "0.05s")),
        )
    }
    started = {
        name: start(folder, *options, "--epochs", "2", "--out", name, log=name)
        for name, options in commands.items()
    }
    try:
        yield {name: finish(folder, name, process) for name, process in started.items()}
    finally:
        for process in started.values():
            process.kill()
            process.wait()


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("deadlocks", "deadlock"),
        ("stops_a_worker", "stalled"),
        ("loses_a_worker", "worker-died"),
    ],
)
def test_a_run_whose_worker_ends_goes_on_without_workers(
    runs: dict[str, Done], name: str, verdict: str
) -> None:
    run = runs[name]
    assert run.exit_code == 0, run.log
    assert [row["rows"] for row in run.epochs] == [str(ROWS)] * 2
    (incident,) = run.incidents
    assert (incident["verdict"], incident["action"]) == (verdict, "restarted")
    assert incident["epoch"] == 2
    epoch = incident["resumed_from"]["epoch"]
    # a worker that was only stopped may go on while it is ended, and its run with it
    assert epoch == 2 or (epoch, verdict) == (3, "stalled")
    assert incident["resumed_from"]["batch"] == 0
    assert incident["lost_steps"] == (incident["step"] if epoch == 2 else 0)
    assert incident["lost_s"] > 0
    assert incident["cell_before"]["workers"] == 2
    assert incident["cell_after"]["workers"] == run.info["cell"]["workers"] == 0
    assert "starts over" in incident["note"]
    assert (run.path / incident["evidence"] / "verdict.json").is_file()
    assert f"{verdict} in epoch 2" in run.log
    text = run.report()
    assert f"done: 1 restart ({verdict} in epoch 2" in text
    assert f"Restarted from epoch {epoch}, batch 0 in another cell: cpu, own loader, no" in text


def test_a_main_process_that_was_killed_is_started_again(runs: dict[str, Done]) -> None:
    run = runs["loses_the_main_process"]
    assert run.exit_code == 0, run.log
    assert [row["rows"] for row in run.epochs] == ["1000", "1000"]
    (incident,) = run.incidents
    assert (incident["verdict"], incident["epoch"]) == ("crashed", 2)
    assert "SIGKILL" in incident["reason"]
    assert incident["cell_before"] == incident["cell_after"]


def test_every_row_is_trained_on_once_in_the_history_that_survives(runs: dict[str, Done]) -> None:
    import torch

    run = runs["SeesRows"]
    assert run.exit_code == 0, run.log
    (incident,) = run.incidents
    assert incident["resumed_from"]["epoch"] == 2
    state = torch.load(run.path / "checkpoints" / "last.pt", weights_only=True)
    rows = state["task"]["rows"]
    assert {epoch: sorted(seen) for epoch, seen in rows.items()} == {
        "1": list(range(ROWS)),
        "2": list(range(ROWS)),
    }
    assert rows["1"] != rows["2"]


def test_nothing_of_them_is_left(runs: dict[str, Done]) -> None:
    assert [pid for run in runs.values() for pid in left_of(run.path)] == []


def worker_of(run: Path, process: subprocess.Popen[bytes], step: int) -> psutil.Process:
    """A worker, once the run has done this step of its first epoch and saved something."""
    end_s = time.monotonic() + 100
    while time.monotonic() < end_s and process.poll() is None:
        progress = read_progress(run / "child" / "progress.bin")
        is_there = progress is not None and progress.epoch == 1 and progress.step >= step
        if progress is not None and is_there and (run / "checkpoints" / "last.pt").is_file():
            children = psutil.Process(progress.pid).children()
            return next(p for p in children if "spawn_main" in " ".join(p.cmdline()))
        time.sleep(0.02)
    pytest.fail((run.parent / f"{run.name}.log").read_text())


def test_a_worker_killed_from_outside_changes_no_number(tmp_path: Path) -> None:
    store = tmp_path / "store"
    generate_store(store, rows=3000, users=200, items=400)
    options = (
        "--data", store, "--set", "history_length=10", "--set", "model=bst", "--batch-size", "128",
        "--threads", "1", "--epochs", "2",
    )  # fmt: skip
    cut = start(
        tmp_path, *options, "--loader", "batches", "--workers", "2", "--checkpoint-every", "0.1s",
        "--out", "cut", log="cut",
    )  # fmt: skip
    whole = start(tmp_path, *options, "--out", "whole", log="whole")
    try:
        worker = worker_of(tmp_path / "cut", cut, step=5)
        assert worker.pid in left_of(tmp_path / "cut"), "so it would see what is left"
        worker.send_signal(signal.SIGKILL)
        runs = [finish(tmp_path, "cut", cut), finish(tmp_path, "whole", whole)]
    finally:
        for process in (cut, whole):
            process.kill()
            process.wait()
    assert [run.exit_code for run in runs] == [0, 0], runs[0].log
    assert runs[0].epochs == runs[1].epochs
    (incident,) = runs[0].incidents
    assert (incident["verdict"], incident["epoch"]) == ("worker-died", 1)
    assert incident["resumed_from"]["epoch"] == 1
    assert incident["resumed_from"]["batch"] > 0
    assert incident["cell_after"] == {**incident["cell_after"], "loader": "thread", "workers": 0}
    assert incident["note"] is None
