from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ctrkit.core.lifeline import (
    FIRST_FOLDER,
    FOLDER_VARIABLE,
    SUPERVISOR_VARIABLE,
    end_with_supervisor,
)


def python(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], env=os.environ | env, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip


def armed(folder: Path) -> dict[str, str]:
    return {"PYTHONPATH": str(FIRST_FOLDER), FOLDER_VARIABLE: str(folder)}


def test_a_sitecustomize_that_was_there_before_still_runs(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.flag = __file__")
    env = armed(tmp_path)
    env["PYTHONPATH"] += os.pathsep + str(tmp_path)
    print_it = "import sys, sitecustomize; print(sys.flag, sitecustomize.__file__)"
    done = python("-c", print_it, **env)
    assert set(done.stdout.split()) == {str(tmp_path / "sitecustomize.py")}, done.stderr
    (tmp_path / "sitecustomize.py").write_text("import nothing_of_this_name")
    done = python("-c", "print('goes on')", **env)
    assert done.stdout == "goes on\n"
    assert "nothing_of_this_name" in done.stderr


def test_without_a_place_for_them_a_process_runs_unarmed(tmp_path: Path) -> None:
    done = python("-c", "print('goes on')", **armed(tmp_path / "missing"))
    assert (done.stdout, done.stderr) == ("goes on\n", "")


def test_nothing_happens_without_a_supervisor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SUPERVISOR_VARIABLE, raising=False)
    end_with_supervisor()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the guard does it elsewhere")
def test_a_child_whose_supervisor_is_gone_already_ends() -> None:
    code = (
        "from ctrkit.core.lifeline import end_with_supervisor; "
        "end_with_supervisor(); print('alive')"
    )
    gone = os.environ | {SUPERVISOR_VARIABLE: "1"}
    here = os.environ | {SUPERVISOR_VARIABLE: str(os.getpid())}
    for env, output in ((gone, ""), (here, "alive\n")):
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=30
        )
        assert done.stdout == output
