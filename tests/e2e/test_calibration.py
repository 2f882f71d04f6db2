"""`ctrkit report --calibration` after real runs: nothing, a kept promise, a failure."""

from __future__ import annotations

import json
from pathlib import Path

from support import Run

WORKLOAD = """
import os, time

class Loader:
    def __len__(self):
        return 120

    def __iter__(self):
        for i in range(120):
            if os.path.exists({switch!r}) and i == 5:
                raise RuntimeError("the switch is on")
            time.sleep(0.004)
            yield [0] * 16

def make_loader(*, batch_size):
    return Loader()
"""


def test_nothing_yet_is_a_line_that_says_what_to_do(ctrkit: Run) -> None:
    done = ctrkit("report", "--calibration")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1
    assert "ctrkit probe" in done.stdout
    found = json.loads(ctrkit("report", "--calibration", "--json").stdout)["calibration"]
    assert (found["summary"]["runs"], found["runs"]) == (0, [])


def test_what_was_promised_and_what_came_of_it(ctrkit: Run, tmp_path: Path) -> None:
    switch = tmp_path / "switch"
    file = tmp_path / "load.py"
    file.write_text(WORKLOAD.format(switch=str(switch)))
    workload = ("--workload", f"{file}:make_loader")
    done = ctrkit("probe", *workload, "--budget", "20s", "--out", tmp_path / "p", "--quiet")
    assert done.returncode == 0, done.stderr
    config = ("--config", tmp_path / "p" / "recommendation.json")
    done = ctrkit("train", *workload, *config, "--epochs", "2", "--quiet")
    assert done.returncode == 0, done.stderr
    switch.touch()
    done = ctrkit("train", *workload, *config, "--epochs", "1", "--no-fallback", "--quiet")
    assert done.returncode == 6, done.stderr

    done = ctrkit("report", "--calibration", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["calibration"]
    failed, finished = found["runs"]
    assert failed["outcome"].startswith("failed: ")
    assert failed["actual_epoch_s"] is None
    assert (finished["outcome"], finished["epochs"], finished["probe"]) == ("finished", 2, "p")
    assert finished["launches"] >= 1
    assert finished["actual_total_s"] > finished["actual_epoch_s"] > 120 * 0.004
    assert finished["projected_epoch_s"] > 120 * 0.004
    assert finished["epoch_held"] in (True, False)
    assert (found["summary"]["finished"], found["summary"]["failed"]) == (1, 1)

    done = ctrkit("report", "--calibration")
    assert done.returncode == 0, done.stderr
    assert "1 finished" in done.stdout
    done = ctrkit("report", "--calibration", "--markdown", tmp_path / "c.md")
    assert done.returncode == 0, done.stderr
    assert "median error" in (tmp_path / "c.md").read_text()


def test_a_damaged_file_and_other_reports_are_one_line(
    ctrkit: Run, own_home: Path, tmp_path: Path
) -> None:
    done = ctrkit("report", "--calibration", "--list")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    (own_home / "calibration.parquet").write_bytes(b"nothing")
    done = ctrkit("report", "--calibration")
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert "calibration.parquet" in done.stderr
