"""A probe that is killed, interrupted or terminated while its workers are wedged leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
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
KILLED = [("blocked", "fork"), ("blocked", "spawn"), ("busy", "fork"), ("busy", "spawn")]
INTERRUPTED = [("blocked", "spawn", signal.SIGINT), ("busy", "fork", signal.SIGTERM)]


@dataclass(frozen=True)
class Ended:
    """A probe that a signal ended, and what was left of it."""

    exit_code: int
    out: str
    processes: int
    left: list[int]
    shared_left: list[str]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Ended]:
    """Each probe, ended while both of its workers are wedged; a few at a time."""

    def end(way: str, start_method: str, number: signal.Signals) -> Ended:
        folder = tmp_path_factory.mktemp(f"{way}-{start_method}")
        with probing(folder, way, start_method) as probe:
            return ended_by(probe, number)

    cases = [*((*case, signal.SIGKILL) for case in KILLED), *INTERRUPTED]
    with ThreadPoolExecutor(3) as pool:
        runs = {case: pool.submit(end, *case) for case in cases}
    return lambda *case: runs[case].result()


@contextmanager
def probing(folder: Path, way: str, start_method: str) -> Iterator[subprocess.Popen[str]]:
    """A probe whose two workers are wedged."""
    (folder / "wedged.py").write_text(WORKLOAD)
    probe = subprocess.Popen(
        [sys.executable, "-m", "ctrkit", "probe", "--workload", f"{folder / 'wedged.py'}:{way}",
         "--workers", "2", "--start-method", start_method, "--out", str(folder / "run"),
         "--budget", "10m", "--stall-timeout", "5m", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=folder,
        env=os.environ | {"CTRKIT_HOME": str(folder / "home")},
    )  # fmt: skip
    try:
        wait_until(lambda: wedged(folder / "run") == 2, timeout_s=120)
        yield probe
    finally:
        probe.kill()
        probe.communicate()


def ended_by(probe: subprocess.Popen[str], number: signal.Signals) -> Ended:
    family = psutil.Process(probe.pid).children(recursive=True)
    shared = shared_files(family)
    probe.send_signal(number)
    out, _ = probe.communicate(timeout=60)
    if number == signal.SIGKILL:  # what is left ends by itself, after the probe
        with suppress(AssertionError):
            wait_until(
                lambda: (
                    not any(map(is_alive, family)) and not any(Path(p).exists() for p in shared)
                ),
                timeout_s=60,
            )
    return Ended(
        exit_code=probe.returncode, out=out, processes=len(family),
        left=[process.pid for process in family if is_alive(process)],
        shared_left=[path for path in shared if Path(path).exists()],
    )  # fmt: skip


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


@pytest.mark.parametrize(("way", "start_method"), KILLED)
def test_the_family_ends_when_the_probe_is_killed(
    ended: Callable[..., Ended], way: str, start_method: str
) -> None:
    probe = ended(way, start_method, signal.SIGKILL)
    assert probe.exit_code == -signal.SIGKILL
    assert probe.processes >= 4  # guard, child, two workers
    assert probe.left == []
    assert probe.shared_left == []


@pytest.mark.parametrize(("way", "start_method", "number"), INTERRUPTED)
def test_an_interrupt_ends_it_with_everything_saved(
    ended: Callable[..., Ended], way: str, start_method: str, number: signal.Signals
) -> None:
    probe = ended(way, start_method, number)
    assert probe.exit_code == 130
    assert probe.left == []
    assert probe.shared_left == []
    (trial,) = json.loads(probe.out)["trials"]
    assert trial["verdict"] == "skipped"
    assert trial["reason"] == "interrupted"
