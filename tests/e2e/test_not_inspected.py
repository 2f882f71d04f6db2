"""A workload that cannot be inspected: the error, with its evidence."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from support import COMMAND

WORKLOAD = """
import os, threading
from ctrkit.child.workloads.protocol import Workload

{top}

class Mine(Workload):
    def sizes(self, batch_size):
        {sizes}
    def train_loader(self, cell):
        raise NotImplementedError
"""
KINDS = {
    "hangs at import": ("threading.Event().wait()", "pass"),
    "dies at import": ("os._exit(3)", "pass"),
    "is killed": ("os.kill(os.getpid(), 9)", "pass"),
    "raises": ("", "raise ValueError('no such table: impressions')"),
    "cannot be imported": ("import no_such_module_anywhere", "pass"),
}


@pytest.mark.parametrize("command", ["probe", "train"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_ends_with_one_line_and_its_evidence(tmp_path: Path, kind: str, command: str) -> None:
    top, sizes = KINDS[kind]
    (tmp_path / "mine.py").write_text(WORKLOAD.format(top=top, sizes=sizes))
    # what does not hang has all the time that a slow machine needs for its start
    limit_s = 5 if kind == "hangs at import" else 90
    (tmp_path / "limits.toml").write_text(f'startup = "{limit_s}s"\n')
    done = subprocess.run(
        [COMMAND, command, "--workload", "mine.py:Mine", "--out", "run", "--quiet",
         "--time-limits", "limits.toml"],
        cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=110,
        env=os.environ | {"CTRKIT_HOME": str(tmp_path / "home")},
    )  # fmt: skip
    said = done.stderr.splitlines()[-1]
    assert said.startswith("ctrkit: "), done.stderr
    assert "Traceback" not in done.stderr
    assert "--resume" not in said
    if kind == "cannot be imported":
        assert done.returncode == 2
        assert "no_such_module_anywhere" in said
        assert not (tmp_path / "run").exists()
        return
    assert done.returncode == (4 if command == "probe" else 6), said
    evidence = tmp_path / "run" / "evidence" / "inspect-1"
    assert str(evidence) in said
    assert (evidence / "verdict.json").is_file()
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (info["status"], info["command"]) == ("failed", command)
    if kind == "raises":
        assert "no such table: impressions" in said
