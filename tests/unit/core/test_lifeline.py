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

HERE = """
import os, signal, sys
from pathlib import Path
from ctrkit.core.lifeline import STACKS_SIGNAL, arm_stacks, stacks_path
folder = Path(sys.argv[1])
def here():
    os.kill(os.getpid(), STACKS_SIGNAL)
    count = stacks_path(folder, os.getpid()).read_text().count("in here")
    os.write(1, f"{count}\\n".encode())  # at once: two processes write at a time
"""
FORK = """
arm_stacks(folder)
here()
child = os.fork()
if child == 0:
    grandchild = os.fork()
    here()
    if grandchild:
        os.waitpid(grandchild, 0)
    os._exit(0)
os.waitpid(child, 0)
arm_stacks(folder)
here()
"""
SPAWN = """
import multiprocessing
class Hostile:
    def __reduce__(self):
        return (here, ())
if __name__ == "__main__":
    for method in ("spawn", "forkserver"):
        process = multiprocessing.get_context(method).Process(target=print, args=(Hostile(),))
        process.start()
        process.join(30)
"""


def python(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], env=os.environ | env, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip


def armed(folder: Path) -> dict[str, str]:
    return {"PYTHONPATH": str(FIRST_FOLDER), FOLDER_VARIABLE: str(folder)}


def test_forked_processes_write_their_stacks_to_files_of_their_own(tmp_path: Path) -> None:
    done = python("-c", HERE + FORK, str(tmp_path))
    assert done.stdout.split() == ["1", "1", "1", "2"], done.stderr
    assert len(list(tmp_path.glob("stacks-*.txt"))) == 3


def test_spawned_processes_are_armed_before_they_unpickle(tmp_path: Path) -> None:
    script = tmp_path / "main.py"
    script.write_text(HERE + SPAWN)
    done = python(str(script), str(tmp_path), **armed(tmp_path))
    assert done.stdout.split() == ["1", "None", "1", "None"], done.stderr


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
