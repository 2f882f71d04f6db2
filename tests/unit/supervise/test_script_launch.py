"""How a script is started: it loses nothing of its own, and nothing of ours hides its modules."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ctrkit.core.config import SCRIPT_TARGET, ChildSpec, ScriptSpec, WorkloadSpec, make_cell
from ctrkit.supervise.script_launch import script_invocation


def spec(folder: Path, *command: str, **environment: str) -> ChildSpec:
    script = ScriptSpec(command=list(command), folder=str(folder), environment=environment)
    return ChildSpec(
        kind="full",
        folder=str(folder / "child"),
        workload=WorkloadSpec(target=SCRIPT_TARGET, script=script),
        cell=make_cell(workers=2, start_method="fork"),
    )


def test_its_own_path_comes_after_ours_and_its_variables_win(tmp_path: Path) -> None:
    start = script_invocation(
        spec(tmp_path, "python", "-j{workers}", WANDB_MODE="online"), tmp_path,
        {"PYTHONPATH": "/own:/other", "HOME": "/h"}, trial=True,
    )  # fmt: skip
    assert start.argv == ["python", "-j2"]
    assert start.folder == str(tmp_path)
    assert start.environment["PYTHONPATH"].endswith("/own:/other")
    assert start.environment["WANDB_MODE"] == "online"
    assert start.environment["HOME"] == "/h"


def test_trackers_are_off_in_a_trial_only(tmp_path: Path) -> None:
    one = spec(tmp_path, "python")
    assert script_invocation(one, tmp_path, {}, trial=True).environment["WANDB_MODE"] == "offline"
    assert "WANDB_MODE" not in script_invocation(one, tmp_path, {}, trial=False).environment


def test_a_python_without_ctrkit_finds_the_observer_and_its_own_modules(tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("mine = True")
    code = "import ctrkit.core.progress, numpy; print(numpy.mine)"
    start = script_invocation(
        spec(tmp_path, sys.executable, "-S", "-c", code), tmp_path,
        {"PYTHONPATH": str(tmp_path)}, trial=True,
    )  # fmt: skip
    # -S leaves out site-packages: all that is found comes over PYTHONPATH
    done = subprocess.run(
        start.argv, env=os.environ | start.environment, cwd=tmp_path, capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.strip() == "True", done.stderr
