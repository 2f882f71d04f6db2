"""Bad input: one clear line that says what and where, exit code 2, and nothing left behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from support import Run


def assert_one_clear_line(done: object, *words: str) -> None:
    returncode, stderr = done.returncode, done.stderr  # type: ignore[attr-defined]
    assert returncode == 2, stderr
    lines = stderr.strip().splitlines()
    assert len(lines) == 1, stderr
    assert lines[0].startswith("ctrkit: ")
    for word in words:
        assert word in lines[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["probe", "--device", "tpu"], ["--device", "tpu", "cpu"]),
        (["probe", "--workers", "-1"], ["--workers", "-1"]),
        (["probe", "--workers", "two"], ["--workers", "two"]),
        (["probe", "--budget", "soon"], ["--budget", "soon"]),
        (["probe", "--phase", "phase9"], ["--phase", "phase9", "phase3"]),
        (["probe", "--set", "epochs"], ["--set", "KEY=VALUE"]),
        (["probe", "--set", "epochz=3"], ["epochz"]),
        (["probe", "--data", "nowhere"], ["nowhere"]),
        (["probe", "--workload", "nowhere.py:f"], ["nowhere.py"]),
        (["probe", "--workload", "make_loader"], ["FILE.py:NAME"]),
        (["train", "--config", "nowhere.json"], ["nowhere.json"]),
        (["train", "--workers", "0,2"], ["--workers", "one value"]),
        (["train", "--resume", "nowhere"], ["nowhere"]),
        (["train", "--epochs", "0"], ["--epochs"]),
        (["train", "--max-restarts", "-1"], ["--max-restarts", "-1"]),
        (["report", "nowhere"], ["nowhere"]),
        (["report"], ["no run"]),
        (["data", "info", "nowhere"], ["nowhere"]),
        (["data", "synth", "--out", "x", "--rows", "0"], ["--rows"]),
        (["data", "synth", "--out", "x", "--format", "xml"], ["--format", "xml"]),
        (["data", "prepare", "--out", "x"], ["--source", "--table"]),
        (["data", "prepare", "--out", "x", "--source", "nowhere"], ["nowhere"]),
        (["explain", "train.py"], ["train.py", "process id"]),
        (["explain", "4194999"], ["no process 4194999", "ps -ef"]),
        (["explain", "1", "--wait", "soon"], ["soon"]),
        (["nonsense"], ["nonsense"]),
        (["probe", "--nonsense"], ["--nonsense", "ctrkit probe --help"]),
        (["train.py"], ["ctrkit probe -- python train.py"]),
        (["python3", "train.py"], ["ctrkit probe -- python3 train.py"]),
        (["porbe"], ["Did you mean 'probe'? See ctrkit --help"]),
        (["train", "train.py"], ["-- python train.py"]),
    ],
    ids=" ".join,
)
def test_options(in_process: Run, tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    assert_one_clear_line(in_process(*arguments), *words)
    assert list(tmp_path.iterdir()) == []


def test_the_installed_command_says_the_same(ctrkit: Run, in_process: Run, tmp_path: Path) -> None:
    """One of each kind: refused by a command itself, an option, and a word that is no command."""
    for words in (["report", "nowhere"], ["probe", "--workers", "two"], ["porbe"]):
        done, here = ctrkit(*words), in_process(*words)
        assert (done.returncode, done.stdout, done.stderr) == (2, here.stdout, here.stderr)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("epochz = 3", ["mine.toml", "epochz"]),
        ("epochs = 'x'", ["mine.toml", "epochs"]),
        ("=", ["mine.toml", "TOML"]),
    ],
)
def test_phase_files(in_process: Run, tmp_path: Path, content: str, words: list[str]) -> None:
    (tmp_path / "mine.toml").write_text(content)
    assert_one_clear_line(in_process("probe", "--phase", "mine.toml"), *words)


def test_a_folder_that_is_no_store(in_process: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert_one_clear_line(in_process("probe", "--data", "empty"), "empty", "meta.json")


def test_a_store_of_another_schema_version(ctrkit: Run, tmp_path: Path, small_store: Path) -> None:
    shutil.copytree(small_store, tmp_path / "store")
    meta = json.loads((tmp_path / "store" / "meta.json").read_text())
    (tmp_path / "store" / "meta.json").write_text(json.dumps({**meta, "schema_version": 99}))
    assert_one_clear_line(ctrkit("probe", "--data", "store"), "store", "99")


def test_a_truncated_store(ctrkit: Run, tmp_path: Path, small_store: Path) -> None:
    shutil.copytree(small_store, tmp_path / "store")
    largest = max((tmp_path / "store").glob("*.arrow"), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:1000])
    assert_one_clear_line(ctrkit("train", "--data", "store"), largest.name)


def test_a_csv_with_a_missing_column(ctrkit: Run, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item,when,label\n1,2,3,1\n")
    columns = ["--user", "user", "--item", "item", "--time", "time", "--label", "label"]
    done = ctrkit("data", "prepare", "--table", "log.csv", *columns, "--out", "store")
    assert_one_clear_line(done, "log.csv", "time")
    assert not (tmp_path / "store").exists()


def test_a_workload_that_fails_to_import(ctrkit: Run, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import os\nraise RuntimeError('not today')\n")
    done = ctrkit("probe", "--workload", "broken.py:make_loader", "--out", "run")
    assert_one_clear_line(done, "broken.py", "not today", "line 2")
    assert not (tmp_path / "run").exists()


def test_an_output_folder_that_cannot_be_written(ctrkit: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert_one_clear_line(ctrkit("probe", "--out", "file/run"), "--out", "file")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").write_text("")
    assert_one_clear_line(ctrkit("probe", "--out", "full"), "--out", "full", "not empty")
    assert (tmp_path / "full" / "precious").exists()


def test_a_config_with_an_unknown_axis(ctrkit: Run, tmp_path: Path, small_store: Path) -> None:
    (tmp_path / "cell.json").write_text('{"wrokers": 2}')
    done = ctrkit("train", "--data", small_store, "--config", "cell.json")
    assert_one_clear_line(done, "cell.json", "wrokers")
