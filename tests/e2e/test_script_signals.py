"""Signals that end a script's real run, or are meant for it, and the processes left after them."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from script_launches import PYTHON, info, script, start, wait_for
from support import COMMAND, alive

NOTES_SIGNALS = """
import os, signal, sys, time
def note(number, frame):
    with open("signals", "a") as file:
        file.write(signal.Signals(number).name + "\\n")
    if number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        sys.exit(5)
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, note)
open("ready", "w").write(str(os.getpid()))
while True:
    time.sleep(0.05)
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_reaches_the_script_which_decides(tmp_path: Path, name: str) -> None:
    run = start(tmp_path, "--", PYTHON, script(tmp_path, NOTES_SIGNALS))
    wait_for(tmp_path / "ready")
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        run.send_signal(number)
        time.sleep(0.6)
    run.send_signal(signal.Signals[name])
    _, said = run.communicate(timeout=60)
    assert (tmp_path / "signals").read_text().split() == ["SIGUSR1", "SIGUSR2", name]
    assert run.returncode == 5, said
    assert info(tmp_path)["status"] == "interrupted"
    assert f"{name} is passed on" in said


def test_a_shell_between_does_not_keep_the_signal_from_the_training(tmp_path: Path) -> None:
    path = script(tmp_path, NOTES_SIGNALS)
    run = start(tmp_path, "--", "bash", "-c", f"{PYTHON} {path}; exit $?")
    wait_for(tmp_path / "ready")
    run.send_signal(signal.SIGTERM)
    run.communicate(timeout=60)
    assert (tmp_path / "signals").read_text().split() == ["SIGTERM"]


def test_one_that_does_not_end_is_ended_and_nobody_is_left(tmp_path: Path) -> None:
    deaf = "import signal, subprocess, sys, time, os\n" \
           "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" \
           "child = subprocess.Popen(['sleep', '600'])\n" \
           "open('ready', 'w').write(f'{os.getpid()} {child.pid}')\n" \
           "time.sleep(600)\n"  # fmt: skip
    run = start(tmp_path, "--grace", "1s", "--", PYTHON, script(tmp_path, deaf))
    pids = [int(word) for word in wait_for(tmp_path / "ready").split()]
    run.send_signal(signal.SIGTERM)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 128 + signal.SIGTERM, said
    assert "had not ended" in said
    assert not any(alive(pid) for pid in pids)


GRACEFUL = """
import signal, sys, time
open("ready", "w").write("x")
try:
    while True:
        time.sleep(0.05)
except KeyboardInterrupt:
    print("stopped by the user, saved", flush=True)
"""


def test_a_script_that_ends_well_after_ctrl_c_ends_ctrkit_well(tmp_path: Path) -> None:
    run = start(tmp_path, "--", PYTHON, script(tmp_path, GRACEFUL))
    wait_for(tmp_path / "ready")
    run.send_signal(signal.SIGINT)
    out, said = run.communicate(timeout=60)
    assert (run.returncode, out) == (0, "stopped by the user, saved\n"), said
    assert info(tmp_path)["status"] == "interrupted"


JOBS = {
    "slurm": lambda: {"SLURM_JOB_ID": "77", "SLURM_JOB_END_TIME": str(int(time.time()) + 90)},
    "ends-by": dict,
}


@pytest.mark.parametrize("job", JOBS)
def test_a_run_that_a_job_ends_is_told_before_and_gets_the_schedulers_signals(
    tmp_path: Path, job: str
) -> None:
    """As Slurm does with `--signal=USR1@60`: SIGUSR1 first, SIGTERM at the end."""
    options = ["--ends-by", "90s"] if job == "ends-by" else []
    run = subprocess.Popen(
        [COMMAND, "train", "--out", "run", *options, "--", PYTHON, script(tmp_path, NOTES_SIGNALS)],
        cwd=tmp_path, text=True, env={**os.environ, **JOBS[job]()}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    wait_for(tmp_path / "ready")
    run.send_signal(signal.SIGUSR1)
    time.sleep(0.6)
    run.send_signal(signal.SIGTERM)
    _, said = run.communicate(timeout=60)
    assert (tmp_path / "signals").read_text().split() == ["SIGUSR1", "SIGTERM"]
    assert run.returncode == 5, said
    by = "the end of Slurm job 77" if job == "slurm" else "--ends-by 90s"
    assert f"ctrkit: {by} leaves 1 min" in said
