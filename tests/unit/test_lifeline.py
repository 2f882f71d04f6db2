from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ctrkit.lifeline import SUPERVISOR_VARIABLE, end_with_supervisor

ARM = """
import os, signal, sys, time
from pathlib import Path
from ctrkit.lifeline import arm_stacks, stacks_path
folder = Path(sys.argv[1])
arm_stacks(folder)
def here():
    os.kill(os.getpid(), signal.SIGUSR1)
here()
child = os.fork()
if child == 0:
    here()
    os._exit(0)
os.waitpid(child, 0)
print(stacks_path(folder, os.getpid()).read_text().count("in here"))
"""


def test_stacks_are_written_on_the_signal_by_forked_children_too(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ARM, str(tmp_path)], capture_output=True, text=True, timeout=30
    )
    assert done.stdout.strip() == "2", done.stderr


def test_nothing_happens_without_a_supervisor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SUPERVISOR_VARIABLE, raising=False)
    end_with_supervisor()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the guard does it elsewhere")
def test_a_child_whose_supervisor_is_gone_already_ends() -> None:
    code = "from ctrkit.lifeline import end_with_supervisor; end_with_supervisor(); print('alive')"
    gone = os.environ | {SUPERVISOR_VARIABLE: "1"}
    here = os.environ | {SUPERVISOR_VARIABLE: str(os.getpid())}
    for env, output in ((gone, ""), (here, "alive\n")):
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=30
        )
        assert done.stdout == output
