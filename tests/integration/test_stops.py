"""A stop sent to every process of a run, in each of its stages: no training is lost."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from support import COMMAND, left_of

STAGES = Path(__file__).parent / "children" / "stages.py"
BATCHES = 20
Start = Callable[..., "subprocess.Popen[str]"]


@contextmanager
def starting(folder: Path) -> Iterator[Start]:
    """Starts trainings in a folder; what is left of them at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def begin(*arguments: str, slow: str = "", prefix: tuple[str, ...] = ()) -> Any:
        process = subprocess.Popen(
            [*prefix, str(COMMAND), "train", *arguments],
            cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
            env=os.environ | {
                "CTRKIT_HOME": str(folder / "home"), "STAGES_SLOW": slow,
                "STAGES_SEEN": str(folder / "seen"),
            },
        )  # fmt: skip
        started.append(process)
        return process

    try:
        yield begin
    finally:
        for process in started:
            process.kill()
            process.communicate()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with starting(tmp_path) as begin:
        yield begin


def fresh(*options: str) -> tuple[str, ...]:
    return ("--workload", f"{STAGES}:Stages", "--epochs", "2", "--threads", "1", "--out", "run",
            *options)  # fmt: skip


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end_s = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end_s
        time.sleep(0.02)


def reaches(folder: Path, stage: str, times: int = 1) -> Callable[[], bool]:
    def has_reached() -> bool:
        path = folder / "seen"
        return path.exists() and path.read_text().split("\n").count(stage) >= times

    return has_reached


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    root = psutil.Process(process.pid)
    return [root, *root.children(recursive=True)]


def send(number: int, processes: list[psutil.Process]) -> None:
    for one in reversed(processes):  # workers and the child first, as it may come
        with suppress(psutil.Error):
            one.send_signal(number)


def info(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "run" / "run.json").read_text()))


def position(folder: Path) -> dict[str, Any]:
    state = torch.load(folder / "run/checkpoints/last.pt", weights_only=True)
    return dict(state["position"])


# of the training child: the look at the workload before it has reached `import` already, and the
# state is looked at before the first step
REACHED = {"import": 2, "checkpoint": 2}
# a batch of epoch 1, all of it, or epoch 2: where the run must go on at the latest
NOTHING, ALL = (1, 0), (1, BATCHES)
CASES = [
    ("import", signal.SIGTERM, 0, None, None),
    ("data", signal.SIGHUP, 0, None, None),
    ("model", signal.SIGTERM, 0, None, None),
    ("first batch", signal.SIGTERM, 2, None, NOTHING),
    ("step", signal.SIGTERM, 2, (1, 7), (1, 7)),
    ("validation", signal.SIGHUP, 0, ALL, ALL),
    ("metrics", signal.SIGTERM, 2, (2, 0), (2, 0)),
    ("checkpoint", signal.SIGTERM, 0, (2, 0), (2, 0)),
]


@dataclass(frozen=True)
class Stopped:
    """A run that was stopped in a stage, and what resuming it came to."""

    exit_code: int
    words: str
    info: dict[str, Any]
    has_incidents: bool
    left: list[int]
    position: tuple[int, int] | None
    resumed: int
    resumed_words: str
    epochs: int
    steps: int


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Stopped]:
    """Each case, a few at a time: a slow stage leaves the machine to the others."""

    def stop(stage: str, number: int, workers: int) -> Stopped:
        folder = tmp_path_factory.mktemp(stage.replace(" ", "-"))
        with starting(folder) as start:
            return stopped_in(folder, start, stage, number, workers)

    with ThreadPoolExecutor(4) as pool:
        runs = {case[0]: pool.submit(stop, *case[:3]) for case in CASES}
    return lambda stage: runs[stage].result()


def stopped_in(folder: Path, start: Start, stage: str, number: int, workers: int) -> Stopped:
    options = ("--workers", str(workers), *(("--start-method", "fork") if workers else ()))
    process = start(*fresh(*options), slow=stage)
    wait_for(reaches(folder, stage, REACHED.get(stage, 1)), process)
    send(number, family(process))
    words, _ = process.communicate(timeout=60)
    last = folder / "run/checkpoints/last.pt"
    at = position(folder) if last.exists() else None
    said, processes = info(folder), left_of(folder)
    has_incidents = (folder / "run" / "incidents.jsonl").exists()
    resumed = start("--resume", "run")
    resumed_words, _ = resumed.communicate(timeout=120)
    rows = (folder / "run" / "epochs.csv").read_text().splitlines()
    return Stopped(
        exit_code=process.returncode, words=words, info=said, has_incidents=has_incidents,
        left=processes, position=at and (at["epoch"], at["batch"]),
        resumed=resumed.returncode, resumed_words=resumed_words, epochs=len(rows) - 1,
        steps=torch.load(last, weights_only=True)["task"]["steps"],
    )  # fmt: skip


@pytest.mark.parametrize(("stage", "number", "workers", "least", "most"), CASES)
def test_a_signal_to_all_processes_loses_nothing(
    stopped: Callable[[str], Stopped], stage: str, number: int, workers: int,
    least: tuple[int, int] | None, most: tuple[int, int] | None,
) -> None:  # fmt: skip
    run = stopped(stage)
    assert run.exit_code == 130, run.words
    assert run.info["status"] == "interrupted"
    assert "ctrkit train --resume" in run.words
    assert not run.has_incidents
    assert run.left == []
    assert run.position or least is None
    if run.position:
        assert least is None or run.position >= least
        assert most is None or run.position <= most
    assert run.resumed == 0, run.resumed_words
    assert run.epochs == 2
    assert run.steps == 2 * BATCHES


def test_the_child_alone_saves_too(tmp_path: Path, start: Start) -> None:
    process = start(*fresh("--workers", "0"), slow="step")
    wait_for(reaches(tmp_path, "step"), process)
    child = next(p for p in family(process) if "ctrkit.child" in " ".join(p.cmdline()))
    child.send_signal(signal.SIGTERM)
    words, _ = process.communicate(timeout=60)
    assert process.returncode == 130, words
    assert position(tmp_path)["batch"] == 7
    assert info(tmp_path)["status"] == "interrupted"


def test_under_nohup_a_hangup_is_ignored(tmp_path: Path, start: Start) -> None:
    process = start(*fresh("--workers", "0", "--max-steps", "12"), slow="step", prefix=("nohup",))
    wait_for(reaches(tmp_path, "step"), process)
    send(signal.SIGHUP, family(process))
    words, _ = process.communicate(timeout=60)
    assert process.returncode == 0, words


def test_a_step_longer_than_the_grace_is_ended_and_told_of(tmp_path: Path, start: Start) -> None:
    process = start(*fresh("--workers", "0", "--grace", "1s"), slow="step")
    wait_for(reaches(tmp_path, "step"), process)
    send(signal.SIGTERM, family(process))
    words, _ = process.communicate(timeout=60)
    assert process.returncode == 130, words
    assert "6 steps are lost" in " ".join(words.split())
    assert info(tmp_path)["status"] == "interrupted"
    assert left_of(tmp_path) == []


@pytest.mark.parametrize("command", ["train", "probe"])
def test_a_closed_terminal_is_a_hangup_and_no_error(tmp_path: Path, command: str) -> None:
    """The terminal itself is gone: whatever is written to it from then on fails."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.environ |= {"CTRKIT_HOME": str(tmp_path / "home"), "STAGES_SEEN": str(tmp_path / "seen"),
                       "STAGES_SLOW": "step"}  # fmt: skip
        words = ["--workload", f"{STAGES}:Stages", "--workers", "0", "--out", "run"]
        os.execv(COMMAND, [str(COMMAND), command, *words])
    deadline_s = time.monotonic() + 90
    while not reaches(tmp_path, "step")() and time.monotonic() < deadline_s:
        if select.select([terminal], [], [], 0.05)[0]:
            with suppress(OSError):
                os.read(terminal, 65_536)
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 130
    assert info(tmp_path)["status"] == "interrupted"
    assert left_of(tmp_path) == []
    if command == "train":
        assert position(tmp_path)["batch"] == 7


@pytest.mark.slow
@pytest.mark.parametrize("start_method", ["spawn", "forkserver"])
def test_workers_of_every_start_method_outlive_the_signal(
    tmp_path: Path, start: Start, start_method: str
) -> None:
    process = start(
        *fresh("--workers", "2", "--start-method", start_method, "--epochs", "40"), slow="step"
    )
    wait_for(reaches(tmp_path, "step"), process)
    send(signal.SIGTERM, family(process))
    words, _ = process.communicate(timeout=60)
    assert process.returncode == 130, words
    assert position(tmp_path)["batch"] == 7
    assert not (tmp_path / "run" / "incidents.jsonl").exists()
    assert left_of(tmp_path) == []
