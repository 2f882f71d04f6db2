"""Runs the same scenarios without ctrkit: stock `DataLoader(timeout=5)`, and loadtune 0.3.0."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from hang_corpus import Scenario, remove_groups
from hang_left import Ran, run_marked

LOADTUNE = "loadtune==0.3.0"
LOADTUNE_SCENARIOS = ("hang_after_batches", "killed", "healthy")
_STOCK_CAP_S, _LOADTUNE_CAP_S = 30.0, 60.0
_LOADTUNE_TIMEOUT_S = 20
# torch's workers check every 5 s whether their parent is still there
_SETTLE_S = 6.0
_HERE = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class SeenPeer:
    """What another tool did with a scenario.

    `outcome`: `completed`, `raised ...`, `ended with ...`, or `hung` at a cap. `line`: a guilty
    line stood in its output, None if there is none to name. `left`: processes left 6 s
    after the main one had ended, or had been killed at the cap. `orphans`: shared memory and
    semaphores that were left when all of them were gone.
    """

    tool: str
    scenario: str
    workers: int
    start_method: str | None
    outcome: str
    wall_s: float
    line: bool | None
    left: int
    orphans: int


def peer_cell(scenario: Scenario) -> tuple[int, str | None]:
    """The cell for the peers: with two workers if possible, and one that fails if there is one."""
    methods = [method for method in ("fork", "spawn", "forkserver") if method in scenario.cells]
    failing = [method for method in methods if "ok" not in scenario.cells[method]]
    for method in (*failing, *methods):
        return 2, method
    return 0, None


def run_stock(scenario: Scenario, folder: Path) -> SeenPeer:
    """Iterate the loader in a plain script with `timeout=5`, for at most 30 s."""
    workers, start_method = peer_cell(scenario)
    argv = [sys.executable, str(_HERE / "hang_stock.py"), str(scenario.path), str(workers)]
    ran = run_marked(
        [*argv, *([start_method] if start_method else [])],
        folder, cap_s=_STOCK_CAP_S, settle_s=_SETTLE_S,
    )  # fmt: skip
    if "cgroup" in scenario.needs:
        remove_groups()
    said = ran.stdout.strip().splitlines()[-1:] or ["ended without a word"]
    return _seen("stock timeout=5", scenario, workers, start_method, ran, said[0])


def install_loadtune(folder: Path) -> Path:
    """Install loadtune into `folder` without its dependencies, which are already installed.

    Raises:
        RuntimeError: it cannot be installed.
    """
    argv = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
    try:
        done = subprocess.run(
            [*argv, str(folder), LOADTUNE], capture_output=True, text=True, timeout=120, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"{LOADTUNE} cannot be installed: {error}") from error
    if done.returncode:
        raise RuntimeError(f"{LOADTUNE} cannot be installed: {done.stderr.strip()[-300:]}")
    return folder


def run_loadtune(scenario: Scenario, installed: Path, folder: Path) -> SeenPeer:
    """`loadtune profile` with two workers and a timeout of 20 s, for at most 60 s."""
    argv = [
        sys.executable, "-m", "loadtune.cli", "profile", str(_HERE / "hang_loadtune.py"),
        "--workers", "2", "--steps", "60", "--warmup", "2",
        "--timeout", str(_LOADTUNE_TIMEOUT_S),
    ]  # fmt: skip
    environment = {"PYTHONPATH": str(installed), "HANG_SCENARIO": str(scenario.path)}
    ran = run_marked(
        argv, folder, cap_s=_LOADTUNE_CAP_S, settle_s=_SETTLE_S, environment=environment
    )
    error = _error_of(ran.stdout)
    said = f"ended with {error}" if error else "completed"
    return _seen("loadtune 0.3.0", scenario, 2, None, ran, said)


def _error_of(stdout: str) -> str | None:
    """The last line of the error in the JSON document that loadtune prints; None without one."""
    try:
        error = json.loads(stdout[stdout.index("{\n") :]).get("error")
    except ValueError:
        return None
    return error.strip().splitlines()[-1][:300] if error else None


def _seen(
    tool: str, scenario: Scenario, workers: int, start_method: str | None, ran: Ran, said: str
) -> SeenPeer:
    text = ran.stdout + ran.stderr
    lines = [line.rpartition(":") for line in scenario.guilty_lines]
    named = any(f'{file}", line {number}, ' in text for file, _, number in lines)
    if ran.exit_code is None:
        said = f"{said}, then hung" if said.startswith(("raised", "completed")) else "hung"
    elif ran.exit_code < 0 or said == "ended without a word":
        said = f"ended with exit code {ran.exit_code}"
    return SeenPeer(
        tool=tool, scenario=scenario.name, workers=workers, start_method=start_method,
        outcome=said, wall_s=ran.wall_s, line=named if lines else None, left=ran.left,
        orphans=len(ran.orphans),
    )  # fmt: skip
