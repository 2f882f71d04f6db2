"""Real failures as plain scripts under `ctrkit train --`: verdict, guilty line, exit code."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hang_corpus import load_corpus
from support import COMMAND, left_of

SCRIPT = Path(__file__).parent / "children" / "train_on.py"
CORPUS = {scenario.name: scenario for scenario in load_corpus()}

# name: workers, start method, exit code
CASES = {
    "hang_in_collate": (2, "fork", 6),
    "hang_in_worker_init": (1, "spawn", 6),
    "main_deadlock": (0, "-", 6),
    "thread_at_shutdown": (0, "-", 6),
    "stopped": (1, "fork", 6),
    "killed": (1, "fork", 1),
    "error_in_getitem": (2, "fork", 1),
    "grandchildren": (1, "fork", 0),
}


@dataclass(frozen=True)
class Seen:
    """How a run of a scenario went, in a folder of its own."""

    folder: Path
    exit_code: int
    stderr: str
    info: dict[str, Any]
    incidents: list[dict[str, Any]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Seen]:
    """Each case, a few at a time: what hangs leaves the machine to the others."""

    def train(name: str) -> Seen:
        workers, method, _ = CASES[name]
        folder = tmp_path_factory.mktemp(name)
        command = [sys.executable, SCRIPT, CORPUS[name].path, str(workers), method]
        done = subprocess.run(
            [COMMAND, "train", "--stall-timeout", "6s", "--out", "run", "--", *command],
            cwd=folder, capture_output=True, text=True, timeout=180, stdin=subprocess.DEVNULL,
            check=False,
        )  # fmt: skip
        path = folder / "run" / "incidents.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return Seen(
            folder=folder,
            exit_code=done.returncode,
            stderr=done.stderr,
            info=json.loads((folder / "run" / "run.json").read_text()),
            incidents=[json.loads(line) for line in lines],
        )

    with ThreadPoolExecutor(4) as pool:
        seen = dict(zip(CASES, pool.map(train, CASES), strict=True))
    return seen.__getitem__


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="some cases need Linux")
@pytest.mark.parametrize("name", CASES)
def test_a_script_is_judged_as_a_workload_is(trained: Callable[[str], Seen], name: str) -> None:
    workers, method, exit_code = CASES[name]
    scenario, seen = CORPUS[name], trained(name)
    assert seen.exit_code == exit_code, seen.stderr
    expected = scenario.expected(workers, method)
    if expected == ("ok",):
        assert seen.info["status"] == "done"
        assert seen.incidents == []
        return
    (incident,) = seen.incidents
    assert incident["verdict"] in expected
    if scenario.guilty_lines:
        told = f"{incident['reason']} {incident['cause']}"
        assert any(line in told for line in scenario.guilty_lines), told
    assert left_of(seen.folder) == []


RANKS = Path(__file__).parent / "children" / "train_ranks.py"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


# mode: the rank that the other one waits for
RANK_MODES = {"hang": 1, "skip": 0, "stay": 1}


@pytest.fixture(scope="module")
def of_ranks(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], tuple[subprocess.CompletedProcess[str], Path]]:
    """Each mode, all at once: how its command ended, and its run folder."""

    def train(mode: str) -> tuple[subprocess.CompletedProcess[str], Path]:
        folder = tmp_path_factory.mktemp(mode)
        command = [COMMAND, "train", "--stall-timeout", "6s", "--out", "run", "--"]
        done = subprocess.run(
            [*command, *TORCHRUN, RANKS, mode], cwd=folder, capture_output=True, text=True,
            timeout=180, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        return done, folder / "run"

    with ThreadPoolExecutor(3) as pool:
        seen = dict(zip(RANK_MODES, pool.map(train, RANK_MODES), strict=True))
    return seen.__getitem__


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads stacks of both ranks")
@pytest.mark.parametrize("mode", RANK_MODES)
def test_of_ranks_the_late_one_is_named_with_its_line(
    of_ranks: Callable[[str], tuple[subprocess.CompletedProcess[str], Path]], mode: str
) -> None:
    done, run = of_ranks(mode)
    assert done.returncode == 6, done.stderr
    (incident,) = map(json.loads, (run / "incidents.jsonl").read_text().splitlines())
    lines = RANKS.read_text().splitlines()
    guilty = next(number for number, line in enumerate(lines, 1) if line.endswith("# guilty"))
    assert incident["verdict"] == "deadlock"
    assert incident["cause"].startswith(f"rank {RANK_MODES[mode]} (pid ")
    # with `stay` nobody is left to wait for it
    assert ("the other ranks wait for it" in incident["cause"]) == (mode != "stay")
    assert f"train_ranks.py:{guilty} in wait_for" in incident["cause"]
    assert "GIL" not in incident["cause"]
    assert left_of(run.parent) == []


ASKS = """
import sys, time, torch
from torch.utils.data import DataLoader
model = torch.nn.Linear(1, 1)
for step, batch in enumerate(DataLoader(torch.ones(64, 1), 8)):
    model(batch).mean().backward()
    model.zero_grad()
    if step == 3:
        print("go on?", flush=True)
        sys.exit(0 if input() == "yes" else 1)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks /proc")
def test_a_script_that_asks_its_user_does_not_hang(tmp_path: Path) -> None:
    (tmp_path / "asks.py").write_text(ASKS)
    argv = [str(COMMAND), "train", "--stall-timeout", "2s", "--out", "run", "--"]
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.execv(argv[0], [*argv, sys.executable, "asks.py"])
    shown, asked_s = "", None
    while True:
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                data = os.read(terminal, 4096)
            except OSError:
                break
            if not data:
                break
            shown += data.decode(errors="replace")
        if asked_s is None and "go on?" in shown:
            asked_s = time.monotonic()
        if asked_s is not None and time.monotonic() - asked_s > 8:
            os.write(terminal, b"yes\r")
            asked_s = float("inf")
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(terminal)
    assert code == 0, shown
