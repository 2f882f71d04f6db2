"""`ctrkit report` as a user runs it: the list, comparisons and their exit codes."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import Run

from ctrkit.core.files import read_table, write_table
from ctrkit.core.trial_tables import records_of_table, trials_table

STORED = Path(__file__).parents[1] / "unit" / "report" / "golden"

SLEEPER = """
import time

def make_loader(*, workers):
    def batches():
        for _ in range(100_000):
            time.sleep({sleep_s})
            yield [0] * 16
    return batches()
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return Path(shutil.copytree(STORED / "probe", tmp_path / "base"))


def slower(base: Path, factor: float) -> Path:
    """A copy of a probe in which every step took `factor` times as long."""
    new = Path(shutil.copytree(base, base.parent / f"new-{factor}"))

    def scaled(value: float | None) -> float | None:
        return None if value is None else value * factor

    records = [
        dataclasses.replace(
            record, step_s=scaled(record.step_s), step_s_low=scaled(record.step_s_low),
            step_s_high=scaled(record.step_s_high),
        )
        for record in records_of_table(read_table(base / "trials.parquet"))
    ]  # fmt: skip
    write_table(new / "trials.parquet", trials_table(records))
    return new


@pytest.mark.parametrize(("factor", "code"), [(0.9, 0), (1.001, 0), (1.05, 3), (1.3, 5)])
def test_the_gate_of_a_comparison(in_process: Run, base: Path, factor: float, code: int) -> None:
    done = in_process("report", "--compare", base, slower(base, factor), "--json")
    assert done.returncode == code, done.stderr
    found = json.loads(done.stdout)["compare"]
    assert found["exit_code"] == code
    assert found["rows"][0]["ratio"] == pytest.approx(factor)
    assert len(done.stderr.splitlines()) == (1 if code else 0)


def test_the_threshold_is_an_option(in_process: Run, base: Path) -> None:
    new = slower(base, 1.3)
    done = in_process("report", "--compare", base, new, "--threshold", "50%")
    assert done.returncode == 0, done.stderr
    assert "passed: no regression beyond 50 %" in done.stdout
    done = in_process("report", "--compare", base, new, "--threshold", "5")
    assert done.returncode == 2
    assert "'5' is not a share; write for example 5% or 0.05" in done.stderr


def test_what_is_not_comparable_is_one_clear_line(in_process: Run, base: Path) -> None:
    train = Path(shutil.copytree(STORED / "train", base.parent / "train"))
    done = in_process("report", "--compare", base, train)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert "are not comparable: a probe and a train" in done.stderr
    values = json.loads((base / "run.json").read_text())
    (base / "run.json").write_text(json.dumps(values | {"schema_version": 7}))
    for arguments in ((base,), ("--compare", base, base)):
        done = in_process("report", *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert len(done.stderr.splitlines()) == 1
        assert "schema version 7, but this ctrkit reads 1" in done.stderr


def test_many_runs_are_listed_without_torch(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with open(home / "runs.jsonl", "w") as index:
        for number in range(200):
            run = tmp_path / "runs" / f"{number:03d}"
            run.mkdir(parents=True)
            for name in ("run.json", "recommendation.json"):
                shutil.copy(STORED / "probe" / name, run / name)
            index.write(json.dumps({"path": str(run)}) + "\n")
    code = (
        "import sys; from ctrkit.cli.app import run_command\n"
        "sys.argv = ['ctrkit', 'report', '--list']; code = run_command()\n"
        "heavy = {'torch', 'scipy', 'pyarrow', 'matplotlib', 'sklearn'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120,
        env={**os.environ, "CTRKIT_HOME": str(home), "COLUMNS": "100"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 202
    assert lines[2].split()[-1] == "runs/199"
    assert "1 d 1 h" in lines[2]


def test_two_real_probes_of_which_the_second_is_slower(ctrkit: Run, tmp_path: Path) -> None:
    file = tmp_path / "loop.py"
    for name, sleep_s in (("one", 0.004), ("two", 0.012)):
        file.write_text(SLEEPER.format(sleep_s=sleep_s))
        done = ctrkit(
            "probe", "--workload", f"{file}:make_loader", "--workers", "0", "--budget", "20s",
            "--out", name, "--quiet",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    done = ctrkit("report", "--compare", "one", "two", "--json")
    assert done.returncode == 5, done.stderr
    found = json.loads(done.stdout)["compare"]
    assert found["verdict"] == "slower"
    assert found["rows"][0]["ratio_low"] > 1.05
    assert "The workload's file is a different one, or it was changed." in found["cautions"]
    done = ctrkit("report", "--compare", "two", "one")
    assert done.returncode == 0, done.stderr
    assert "faster" in done.stdout
