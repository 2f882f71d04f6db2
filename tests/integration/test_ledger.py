"""Ledgers of real runs: they sum to the wall-clock time, and a stop is never a slow loader."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from support import COMMAND

from ctrkit.core.progress import read_progress
from ctrkit.supervise.ledger import read_ledger, totals

BATCH_S, BATCHES, EPOCHS = 0.05, 30, 2
STOPPED_S, PAUSED_S = 4.0, 8.0
ALLOWED_S = 15  # longer than a start takes, and much shorter than the slow run
LOADER = f"""
import os, pathlib, time

class Loader:
    def __len__(self):
        return {BATCHES}

    def __iter__(self):
        for number in range({BATCHES}):
            time.sleep({BATCH_S})
            yield [0] * 8

class DiesOnce(Loader):
    def __iter__(self):
        died = pathlib.Path("died")
        for number, batch in enumerate(super().__iter__()):
            if number == 20 and not died.exists():
                died.touch()
                os.kill(os.getpid(), 9)
            yield batch

class SlowUntilTold(Loader):
    def __iter__(self):
        for batch in super().__iter__():
            if not pathlib.Path("quick").exists():
                time.sleep(1)
            yield batch

def steady():
    return Loader()

def slow():
    return SlowUntilTold()

def dies_once():
    return DiesOnce()
"""

# In place of the system's own tool that holds the machine awake: says who it is, and goes on.
AWAKE = """#!/bin/sh
echo $$ >> {pids}
case $0 in *caffeinate) exec sleep 600;; *) exec cat;; esac
"""


@dataclass
class Run:
    """A run that is over; `clock_s` is what this process's own clock says it took."""

    path: Path
    exit_code: int
    log: str
    clock_s: float

    @property
    def info(self) -> dict[str, Any]:
        return dict(json.loads((self.path / "run.json").read_text()))

    @property
    def seconds(self) -> dict[str, float]:
        spent = totals(read_ledger(self.path / "ledger.parquet"))
        print({name: round(seconds, 3) for name, seconds in spent.items()})
        return spent

    @property
    def awake_pids(self) -> list[int]:
        """The tools that held the machine awake for the run."""
        path = self.path.parent / "awake"
        return [int(word) for word in path.read_text().split()] if path.is_file() else []

    @property
    def incidents(self) -> list[dict[str, Any]]:
        path = self.path / "incidents.jsonl"
        lines = path.read_text().splitlines() if path.is_file() else []
        return [json.loads(line) for line in lines]


def train(folder: Path, *arguments: str, meddle: Any = None) -> Run:
    (folder / "work.py").write_text(LOADER)
    (folder / "bin").mkdir()
    for name in ("caffeinate", "systemd-inhibit"):
        tool = folder / "bin" / name
        tool.write_text(AWAKE.format(pids=folder / "awake"))
        tool.chmod(0o755)
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    began_s = time.monotonic()
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            [COMMAND, "train", *arguments, "--epochs", str(EPOCHS), "--out", "run"], cwd=folder,
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            env=os.environ | {"CTRKIT_HOME": str(folder / "home"), "PATH": path},
        )  # fmt: skip
    try:
        if meddle is not None:
            meddle(folder / "run")
        exit_code = process.wait(timeout=120)
    finally:
        process.kill()
        process.wait()
    clock_s = time.monotonic() - began_s
    return Run(folder / "run", exit_code, (folder / "log").read_text(), clock_s)


def stop_the_loop(run: Path) -> None:
    """SIGSTOP after some steps, SIGCONT after some seconds."""
    _stop(run, STOPPED_S, lambda pid: [pid])


def pause_all(run: Path) -> None:
    """The supervisor as well, as when a container is paused."""
    _stop(run, PAUSED_S, lambda pid: [psutil.Process(pid).ppid(), pid])


def _stop(run: Path, seconds: float, whom: Callable[[int], list[int]]) -> None:
    path, deadline_s = run / "child" / "progress.bin", time.monotonic() + 60
    progress = read_progress(path)
    while progress is None or progress.step < 5:
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
        progress = read_progress(path)
    pids = whom(progress.pid)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(seconds)
    for pid in reversed(pids):
        os.kill(pid, signal.SIGCONT)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """All at once: they only sleep."""
    commands: dict[str, tuple[Sequence[str], Any]] = {
        "steady": (("steady",), None),
        "stopped": (("steady",), stop_the_loop),
        "paused": (("steady",), pause_all),
        "dies": (("dies_once",), None),
        "aborted": (("slow", "--abort-if-later-than", f"{ALLOWED_S}s", "--allow-sleep"), None),
    }
    found: dict[str, Run] = {}

    def start(name: str, arguments: Sequence[str], meddle: Any) -> None:
        folder = tmp_path_factory.mktemp(name)
        workload = ("--workload", f"work.py:{arguments[0]}", *arguments[1:])
        found[name] = train(folder, *workload, meddle=meddle)

    threads = [threading.Thread(target=start, args=(n, *c)) for n, c in commands.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_the_ledger_sums_to_the_wall_clock(runs: dict[str, Run]) -> None:
    for name in ("steady", "stopped", "paused", "dies", "aborted"):
        run = runs[name]
        spent, wall_s = run.seconds, run.info["wall_s"]
        print(f"{name}: {sum(spent.values()):.3f} s of {wall_s:.3f} s")
        assert sum(spent.values()) == pytest.approx(wall_s, rel=1e-6)
        assert abs(spent["unexplained"]) <= 0.02 * wall_s
        assert all(seconds > -0.05 for seconds in spent.values())
        assert wall_s <= run.clock_s


def test_a_steady_run_is_data_wait_and_nothing_else(runs: dict[str, Run]) -> None:
    run = runs["steady"]
    assert run.exit_code == 0, run.log
    spent = run.seconds
    assert spent["data_wait"] >= BATCH_S * BATCHES * EPOCHS
    assert (spent["stopped"], spent["asleep"], spent["restart"]) == (0.0, 0.0, 0.0)
    rows = read_ledger(run.path / "ledger.parquet")
    assert sum(row.steps for row in rows) == BATCHES * EPOCHS
    assert sum(row.rows for row in rows) == 8 * BATCHES * EPOCHS


def test_a_run_that_is_stopped_is_reported_as_that_and_not_as_a_slow_loader(
    runs: dict[str, Run],
) -> None:
    run, steady = runs["stopped"], runs["steady"]
    assert run.exit_code == 0, run.log
    spent = run.seconds
    # up to two looks are lost at its ends
    assert STOPPED_S - 1.5 <= spent["stopped"] <= STOPPED_S + 1.0
    assert spent["data_wait"] < steady.seconds["data_wait"] + STOPPED_S / 2
    assert "stopped" in subprocess.run(
        [COMMAND, "report", run.path], capture_output=True, text=True, timeout=60, check=True
    ).stdout.partition("Where the time went")[2]  # fmt: skip


def test_a_run_that_is_paused_with_its_supervisor_was_stopped(runs: dict[str, Run]) -> None:
    run = runs["paused"]
    assert run.exit_code == 0, run.log
    spent = run.seconds
    assert PAUSED_S - 1.0 <= spent["stopped"] <= PAUSED_S + 1.0
    assert spent["data_wait"] < runs["steady"].seconds["data_wait"] + PAUSED_S / 4


def test_a_death_costs_a_restart(runs: dict[str, Run]) -> None:
    run = runs["dies"]
    assert run.exit_code == 0, run.log
    spent = run.seconds
    assert [incident["action"] for incident in run.incidents] == ["restarted"]
    # the steps that were lost are done again
    assert spent["restart"] > 20 * BATCH_S * 0.8
    (last,) = {row.launch for row in read_ledger(run.path / "ledger.parquet")[-1:]}
    assert last == 2


def test_a_run_that_takes_longer_than_allowed_saves_and_stops(runs: dict[str, Run]) -> None:
    run = runs["aborted"]
    assert run.exit_code == 6, run.log
    assert f"--abort-if-later-than allows {ALLOWED_S}" in run.log
    assert f"continue with: ctrkit train --resume {run.path}" in run.log.splitlines()[-1]
    assert (run.info["status"], run.incidents[0]["action"]) == ("ended", "stopped")
    assert "may go to sleep" not in run.log
    (run.path.parent / "quick").touch()
    again = subprocess.run(
        [COMMAND, "train", "--resume", run.path, "--abort-if-later-than", "1h"],
        capture_output=True, text=True, timeout=120, cwd=run.path.parent,
        env=os.environ | {"CTRKIT_HOME": str(run.path.parent / "home")},
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert [row.session for row in read_ledger(run.path / "ledger.parquet")] == [1, 2]


def test_what_holds_the_machine_awake_ends_with_the_run(runs: dict[str, Run]) -> None:
    for name, run in runs.items():
        assert len(run.awake_pids) == (0 if name == "aborted" else 1), name  # it may sleep
        assert not [pid for pid in run.awake_pids if psutil.pid_exists(pid)], name
