"""The whole way as a new user walks it: data, probe, train, interrupt, resume, report."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from support import COMMAND, Run

SMALL = ["--batch-size", "256", "--set", "history_length=10"]
FAST_CELLS = ["--device", "cpu", "--loader", "thread,rows", "--workers", "0"]


def test_probe_train_report(ctrkit: Run, tmp_path: Path, small_store: Path) -> None:
    data = ["--data", small_store]
    done = ctrkit(
        "probe", *data, *SMALL, *FAST_CELLS, "--budget", "60s", "--json", "--out", "probe"
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["run"] == str(tmp_path / "probe")
    assert found["cell"]["batch_size"] == 256
    low, middle, high = (found[f"projected_total_s{end}"] for end in ("_low", "", "_high"))
    assert 0 < low <= middle
    # an end that is open above says why
    assert found["flags"] if high is None else middle <= high
    assert {trial["kind"] for trial in found["trials"]} >= {"compute", "loader", "full"}
    assert {trial["verdict"] for trial in found["trials"]} <= {"ok", "skipped"}
    for name in ("run.json", "trials.parquet", "stamps.parquet", "recommendation.json"):
        assert (tmp_path / "probe" / name).is_file()
    assert not (tmp_path / "probe" / "trials").exists()

    done = ctrkit("train", "--auto-device", *data, *SMALL, "--epochs", "1", "--out", "train")
    assert done.returncode == 0, done.stderr
    assert "recommended by the probe of" in done.stderr
    assert "epoch 1: " in done.stderr
    assert "projected" in done.stderr
    with open(tmp_path / "train" / "epochs.csv") as file:
        (row,) = csv.DictReader(file)
    assert row["epoch"] == "1"
    assert 0 < float(row["val_auc"]) < 1
    assert (tmp_path / "train" / "checkpoints" / "best.pt").is_file()

    done = ctrkit("report", "--json")
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(done.stdout)["runs"]
    assert run["path"] == str(tmp_path / "train")
    assert run["run"]["status"] == "done"
    done = ctrkit("report", "probe", "train", "--markdown", "status.md")
    assert done.returncode == 0, done.stderr
    assert "|" in (tmp_path / "status.md").read_text()
    done = ctrkit("report", "probe")
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    assert found["cell"]["loader"] in done.stdout


def family(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def start(tmp_path: Path, *arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [COMMAND, *map(str, arguments)],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


def wait_for(condition: object, process: subprocess.Popen[str], timeout_s: float = 60) -> None:
    end = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator]
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < end
        time.sleep(0.1)


def test_an_interrupted_run_goes_on_and_ends_as_if_it_had_not_been(
    ctrkit: Run, tmp_path: Path, small_store: Path
) -> None:
    common = ["--data", small_store, *SMALL, "--set", "model=bst", "--threads", "1"]
    whole = ctrkit("train", *common, "--epochs", "2", "--out", "whole", "--quiet")
    assert whole.returncode == 0, whole.stderr

    from ctrkit.core.progress import read_progress

    def is_stepping() -> bool:
        progress = read_progress(tmp_path / "cut" / "child" / "progress.bin")
        return progress is not None and progress.step >= 5

    process = start(tmp_path, "train", *common, "--epochs", "2", "--out", "cut")
    wait_for(is_stepping, process)
    children = family(process.pid)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "ctrkit train --resume" in stderr
    assert not [child for child in children if child.is_running()]

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
    tmp_path: Path, small_store: Path, number: signal.Signals
) -> None:
    process = start(
        tmp_path, "probe", "--data", small_store, *SMALL, "--workers", "0,2", "--out", "run"
    )
    wait_for((tmp_path / "run" / "trials.parquet").is_file, process)
    time.sleep(1)
    children = family(process.pid)
    assert children
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "interrupted" in stderr
    assert not [child for child in children if child.is_running()]

    from ctrkit.core.runs import RunFolder

    run = RunFolder.open(tmp_path / "run")
    assert run.info.status == "interrupted"
    assert any(record.verdict == "ok" for record in run.trials())


def test_data_that_was_ingested_trains(ctrkit: Run, tmp_path: Path) -> None:
    size = ["--rows", "5000", "--users", "150", "--items", "300"]
    assert ctrkit("data", "synth", "--format", "tianchi", "--out", "csv", *size).returncode == 0
    done = ctrkit("data", "prepare", "--source", "csv", "--out", "store")
    assert done.returncode == 0, done.stderr
    done = ctrkit("data", "info", "store", "--json")
    assert json.loads(done.stdout)["rows"]["train"] > 3000
    done = ctrkit("train", "--data", "store", *SMALL, "--epochs", "1", "--out", "run", "--quiet")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "epochs.csv").is_file()


def test_the_parent_never_imports_torch(tmp_path: Path) -> None:
    (tmp_path / "loader.py").write_text("def make_loader():\n    return [[1.0, 2.0]] * 64\n")
    arguments = [
        ["--help"],
        ["probe", "--workload", "loader.py:make_loader", "--budget", "30s", "--out", "run"],
        ["report", "run"],
    ]
    script = (
        "import json, os, sys\n"
        "from ctrkit.cli.app import run_command\n"
        "sys.argv = ['ctrkit', *json.loads(sys.argv[1])]\n"
        "code = run_command()\n"
        "print('torch' in sys.modules, code, file=sys.stderr, flush=True)\n"
        "os._exit(0)\n"  # as the command does
    )
    for words in arguments:
        done = subprocess.run(
            [sys.executable, "-c", script, json.dumps(words)],
            cwd=tmp_path, capture_output=True, text=True, timeout=240, env={**os.environ},
        )  # fmt: skip
        assert done.stderr.splitlines()[-1] == "False 0", done.stderr
