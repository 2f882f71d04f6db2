"""A probe that is killed, interrupted or terminated while its workers are wedged leaves nothing."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from ctrkit.core.progress import WorkerStage, read_workers

WORKLOAD = """
import signal, threading, time
import torch
from torch.utils.data import DataLoader, Dataset

class Rows(Dataset):
    def __init__(self, way):
        self.way = way
    def __len__(self):
        return 64
    def __getitem__(self, index):
        if index >= 8:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            if self.way == "blocked":
                threading.Lock().acquire() and threading.Event().wait()
            while True:
                pass
        return torch.ones(1000) * index

def blocked(*, workers, start_method):
    return DataLoader(Rows("blocked"), 8, num_workers=workers, multiprocessing_context=start_method)

def busy(*, workers, start_method):
    return DataLoader(Rows("busy"), 8, num_workers=workers, multiprocessing_context=start_method)
"""
CASES = [("blocked", "fork"), ("blocked", "spawn"), ("busy", "fork"), ("busy", "spawn")]


@pytest.fixture
def start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str, str], tuple[subprocess.Popen[str], list[psutil.Process]]]]:
    """Start a probe, wait until both workers are wedged; it and its family, living still."""
    monkeypatch.setenv("CTRKIT_HOME", str(tmp_path / "home"))
    (tmp_path / "wedged.py").write_text(WORKLOAD)
    started = []

    def run(way: str, start_method: str) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
        probe = subprocess.Popen(
            [sys.executable, "-m", "ctrkit", "probe", "--workload",
             f"{tmp_path / 'wedged.py'}:{way}", "--workers", "2", "--start-method", start_method,
             "--out", str(tmp_path / "run"), "--budget", "10m", "--stall-timeout", "5m", "--json"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=tmp_path,
        )  # fmt: skip
        started.append(probe)
        wait_until(lambda: wedged(tmp_path / "run") == 2, timeout_s=120)
        return probe, psutil.Process(probe.pid).children(recursive=True)

    yield run
    for probe in started:
        probe.kill()
        probe.communicate()


def wedged(run: Path) -> int:
    """Workers that have been in the data set for a while."""
    now_s = time.monotonic()
    return sum(
        one.stage is WorkerStage.FETCHING and now_s - one.written_s > 1
        for folder in (run / "trials").glob("*")
        for one in read_workers(folder)
    )


def wait_until(condition: Callable[[], bool], timeout_s: float) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "waited in vain"
        time.sleep(0.05)


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def shared_files(family: list[psutil.Process]) -> set[str]:
    """What they map of shared memory and semaphores; other jobs share the place."""
    found = set()
    for process in family:
        with suppress(OSError):
            lines = Path(f"/proc/{process.pid}/maps").read_text().splitlines()
            found |= {line.split()[5] for line in lines if "/dev/shm/" in line}
    return {path for path in found if Path(path).exists()}


@pytest.mark.parametrize(("way", "start_method"), CASES)
def test_the_family_ends_when_the_probe_is_killed(start, way: str, start_method: str) -> None:
    probe, family = start(way, start_method)
    assert len(family) >= 4  # guard, child, two workers
    shared = shared_files(family)
    probe.kill()
    wait_until(lambda: not any(is_alive(process) for process in family), timeout_s=60)
    wait_until(lambda: not any(Path(path).exists() for path in shared), timeout_s=60)


@pytest.mark.parametrize(
    ("way", "start_method", "number"),
    [("blocked", "spawn", signal.SIGINT), ("busy", "fork", signal.SIGTERM)],
)
def test_an_interrupt_ends_it_with_everything_saved(
    start, way: str, start_method: str, number: signal.Signals
) -> None:
    probe, family = start(way, start_method)
    shared = shared_files(family)
    probe.send_signal(number)
    out, _ = probe.communicate(timeout=60)
    assert probe.returncode == 130
    assert not any(is_alive(process) for process in family)
    assert not any(Path(path).exists() for path in shared)
    (trial,) = json.loads(out)["trials"]
    assert trial["verdict"] == "skipped"
    assert trial["reason"] == "interrupted"
