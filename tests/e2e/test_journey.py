"""The whole way of a new user: data, probe, train, report."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from support import Run

# a step of this model is the cheaper one
BST = ["--batch-size", "256", "--set", "history_length=10", "--set", "model=bst"]
CELL = ["--device", "cpu", "--loader", "thread,rows", "--workers", "0", "--threads", "1"]


def test_probe_train_report(ctrkit: Run, tmp_path: Path, small_store: Path) -> None:
    data = ["--data", small_store]
    done = ctrkit("probe", *data, *BST, *CELL, "--budget", "60s", "--json", "--out", "probe")
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

    done = ctrkit("train", "--auto-device", *data, *BST, "--epochs", "1", "--out", "train")
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


def test_data_that_was_ingested_trains(ctrkit: Run, tmp_path: Path) -> None:
    size = ["--rows", "5000", "--users", "150", "--items", "300"]
    assert ctrkit("data", "synth", "--format", "tianchi", "--out", "csv", *size).returncode == 0
    done = ctrkit("data", "prepare", "--source", "csv", "--out", "store")
    assert done.returncode == 0, done.stderr
    done = ctrkit("data", "info", "store", "--json")
    assert json.loads(done.stdout)["rows"]["train"] > 3000
    small = ["--batch-size", "1024", "--set", "history_length=4", "--threads", "1", "--quiet"]
    done = ctrkit("train", "--data", "store", *small, "--epochs", "1", "--out", "run")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "epochs.csv").is_file()
