"""The real run of a script: its streams, its exit code, and what is reported and kept."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from script_launches import PYTHON, info, script
from support import COMMAND, Run, alive


@pytest.mark.parametrize(
    ("code", "expected", "status"),
    [
        ("raise SystemExit(0)", 0, "done"),
        ("raise SystemExit(3)", 3, "ended"),
        ("import os; os.kill(os.getpid(), 9)", 137, "ended"),
    ],
)
def test_it_ends_with_the_scripts_exit_code(
    ctrkit: Run, tmp_path: Path, code: str, expected: int, status: str
) -> None:
    done = ctrkit("train", "--out", "run", "--", PYTHON, "-c", code)
    assert done.returncode == expected, done.stderr
    assert info(tmp_path)["status"] == status
    words = "SIGKILL" if expected == 137 else f"exit code {expected}"
    assert words in done.stderr.splitlines()[-1]
    assert ctrkit("report", "run").returncode == 0


EARLY = """
import sys, torch
from torch.utils.data import DataLoader, TensorDataset
loader = DataLoader(TensorDataset(torch.rand(400, 4)), batch_size=4)
model = torch.nn.Linear(4, 1)
for epoch in range(2):
    for i, (x,) in enumerate(loader):
        model(x).mean().backward()
        if i == 30:
            {}
"""


@pytest.mark.parametrize(
    ("ends", "finished", "batches"),
    [
        ("sys.exit(3)", 0, 100),
        ("raise ValueError('diverged')", 0, 100),
        ("break", 2, 31),
        ("epoch and sys.exit(3)", 1, 100),
    ],
)
def test_an_epoch_that_the_end_of_the_script_broke_off_is_not_finished(
    ctrkit: Run, tmp_path: Path, ends: str, finished: int, batches: int
) -> None:
    path = script(tmp_path, EARLY.format(ends))
    done = ctrkit("train", "--out", "run", "--", PYTHON, path)
    assert (done.returncode == 0) == (ends == "break"), done.stderr
    if done.returncode:
        epoch = finished + 1
        # the batch that raises is not done
        count = 30 if "raise" in ends else 31
        assert f"after {count} of 100 batches of epoch {epoch}" in done.stderr.splitlines()[-1]
    about = info(tmp_path)
    sizes, cell = about["sizes"], about["cell"]
    assert isinstance(sizes, dict)
    assert isinstance(cell, dict)
    assert sizes["train_batches"] == batches
    assert (cell["loader"], cell["batch_size"]) == ("script", 4)
    assert f"{finished} finished of 2" in ctrkit("report", "run").stdout


def test_its_streams_pass_unchanged_and_are_kept(tmp_path: Path) -> None:
    code = (
        "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read()); print('e', file=sys.stderr)"
    )
    data = bytes(range(256)) * 1000
    done = subprocess.run(
        [COMMAND, "train", "--quiet", "--out", "run", "--", PYTHON, "-c", code], cwd=tmp_path,
        input=data, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stdout == data
    assert done.stderr == b"e\n"
    assert (tmp_path / "run" / "child" / "stdout.txt").read_bytes() == data
    assert (tmp_path / "run" / "child" / "stderr.txt").read_bytes() == b"e\n"


def test_who_stops_reading_ends_the_script_as_usual(tmp_path: Path) -> None:
    code = "import sys\nwhile True: print('x' * 1000)"
    command = f'{COMMAND} train -q --out run -- {PYTHON} -c "$CODE" | head -c 10'
    done = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, env=os.environ | {"CODE": code}, timeout=60,
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.stdout == b"x" * 10
    assert info(tmp_path)["status"] == "ended"


def test_a_reader_that_takes_its_time_gets_all(tmp_path: Path) -> None:
    command = (
        f"{COMMAND} train -q --out run -- {PYTHON} -c \"print('x' * 300000)\" | (sleep 5; wc -c)"
    )
    done = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, timeout=60, capture_output=True, check=False
    )
    assert done.stdout.split() == [b"300001"]
    assert info(tmp_path)["status"] == "done"


def test_streams_that_the_caller_has_closed_are_no_hindrance(tmp_path: Path) -> None:
    closed = f"{COMMAND} train -q --out run -- echo hello >&- <&-"
    done = subprocess.run(
        ["sh", "-c", closed], cwd=tmp_path, timeout=60, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "run" / "child" / "stdout.txt").read_text() == "hello\n"


def test_what_a_script_leaves_running_is_told_and_ended(ctrkit: Run, tmp_path: Path) -> None:
    code = "sleep 600 & echo $! > left"
    done = ctrkit("train", "--out", "run", "--", "sh", "-c", code)
    assert done.returncode == 0, done.stderr
    pid = int((tmp_path / "left").read_text())
    assert f"left pid {pid} (sleep) running" in done.stderr
    assert not alive(pid)


def test_it_is_run_again_only_if_asked(ctrkit: Run, tmp_path: Path) -> None:
    flaky = "import os, sys\n" \
            "count = len(os.listdir('.'))\n" \
            "open(f'try-{count}', 'w').close()\n" \
            "sys.exit(0 if os.path.exists('run') and len([n for n in os.listdir('.')" \
            " if n.startswith('try')]) == 2 else 4)\n"  # fmt: skip
    path = script(tmp_path, flaky)
    done = ctrkit("train", "--out", "run", "--max-restarts", "3", "--", PYTHON, path)
    assert done.returncode == 0, done.stderr
    incidents = (tmp_path / "run" / "incidents.jsonl").read_text().splitlines()
    assert [json.loads(line)["action"] for line in incidents] == ["restarted"]
    assert "1 restart" in str(info(tmp_path)["status_reason"])
    once = ctrkit("train", "--out", "other", "--", PYTHON, path)
    assert once.returncode == 4


def test_one_that_cannot_be_observed_runs_and_is_told_of(ctrkit: Run, tmp_path: Path) -> None:
    done = ctrkit("train", "--out", "run", "--", PYTHON, "-I", "-c", "print('hello')")
    assert done.returncode == 0
    assert done.stdout == "hello\n"
    assert "watches the script from outside only: python -I" in done.stderr
    plain = ctrkit("train", "--out", "other", "--", "echo", "hello")
    assert plain.stdout == "hello\n"
    assert "watches the script from outside only: no Python process" in plain.stderr


def test_no_secret_of_the_command_is_written_down(ctrkit: Run, tmp_path: Path) -> None:
    secret = "s3cr3t-value"
    check = f"import os, sys; sys.exit(sys.argv[2] != '{secret}' or os.environ['X'] != '{secret}')"
    path = script(tmp_path, check.replace(secret, "' + 's3cr3t' + '-value"))
    done = ctrkit(
        "train", "--out", "run", "--env", f"X={secret}", "--", PYTHON, path, "--api-key", secret
    )
    assert done.returncode == 0, done.stderr
    files = [file for file in (tmp_path / "run").rglob("*") if file.is_file()]
    texts = {file.name: file.read_bytes() for file in files if "observer" not in str(file.parent)}
    assert [name for name, text in texts.items() if secret.encode() in text] == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--resume", "x", "--", "true"], ["--resume", "script"]),
        (["--max-steps", "3", "--", "true"], ["--max-steps", "script"]),
        (["--device", "cpu", "--", "true"], ["--device", "{device}"]),
        (["--loader", "rows", "--", "true"], ["--loader", "script"]),
        (["--", "true", "{workers}"], ["{workers}", "--workers"]),
        (["--workers", "1,2", "--", "true"], ["one value"]),
        (["--ends-by", "yesterday", "--", "true"], ["--ends-by yesterday", "07:30"]),
        (["--ends-by", "2020-01-01T00:00", "--", "true"], ["past"]),
        (["--ends-by", "6h"], ["--ends-by", "after --"]),
        (["--config", "nowhere.json", "--", "true"], ["nowhere.json"]),
        (["--", "no-such-program"], ["no-such-program"]),
    ],
    ids=" ".join,
)
def test_bad_input(in_process: Run, tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    done = in_process("train", *arguments)
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert all(word in lines[0] for word in words), lines[0]
    assert list(tmp_path.iterdir()) == []


def test_auto_device_trains_as_written_where_a_brief_probe_sees_no_training(
    ctrkit: Run, tmp_path: Path
) -> None:
    path = script(tmp_path, "print('trained without torch')")
    done = ctrkit("train", "--auto-device", "--out", "run", "--", PYTHON, path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "trained without torch\n"
    assert "probes it briefly first" in done.stderr
    assert "as written: nothing of the script is changed. --auto-device found nothing better: " in (
        done.stderr
    )
    assert info(tmp_path)["status"] == "done"


def test_the_walltime_of_a_pbs_job_is_known(ctrkit: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PBS_JOBID", "12.server")
    monkeypatch.setenv("PBS_WALLTIME", "999:00:00")
    done = ctrkit("train", "--out", "run", "--", PYTHON, "-c", "pass")
    assert done.returncode == 0, done.stderr
    assert "ctrkit: the walltime of PBS job 12 leaves" in done.stderr
