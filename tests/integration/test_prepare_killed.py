from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ctrkit.ctr.data.store import Store, read_meta
from ctrkit.ctr.data.taobao import prepare_tianchi
from ctrkit.ctr.data.tianchi import generate_tianchi

# Kills itself with SIGKILL when it is told of something for the given time.
CHILD = """
import os, signal, sys
from pathlib import Path
from ctrkit.ctr.data.taobao import prepare_tianchi
from ctrkit.ctr.data.stage_progress import Watcher

class Killer(Watcher):
    def __init__(self, left):
        self.left = left

    def stage(self, progress):
        if progress.state == "skipped":
            return
        print(progress.name, progress.state, flush=True)
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)

source, out, left = sys.argv[1:]
prepare_tianchi(
    Path(source), Path(out), memory_limit_bytes=10**9, threads=1, watcher=Killer(int(left))
)
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generated") / "tianchi"
    generate_tianchi(folder, rows=3000, users=200, items=200, seed=7)
    return folder


def _child(source: Path, out: Path, left: int) -> tuple[int, list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, source, out, str(left)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode, done.stdout.splitlines()


def test_killed_again_and_again_it_makes_the_same_store(source: Path, tmp_path: Path) -> None:
    out, lines, killed = tmp_path / "store", [], 0
    for left in (1, 3, 4, 5, 6, 7, 8, 9, 100):
        code, told = _child(source, out, left)
        lines += told
        killed += code != 0
        if not code:
            break
        assert not out.exists()
    assert killed >= 5
    finished = [line for line in lines if line.endswith(" done")]
    # killed when the store was whole, the last stage was not told as done
    assert len(set(finished) - {"writing the store done"}) == 12
    assert len(finished) - len(set(finished)) <= killed, "at most the last one is done again"
    whole = prepare_tianchi(
        source, tmp_path / "whole", memory_limit_bytes=10**9, threads=1
    )  # fmt: skip
    assert replace(read_meta(out), created="") == replace(whole, created="")
    first, second = Store.open(out), Store.open(tmp_path / "whole")
    np.testing.assert_array_equal(first.impressions, second.impressions)
    np.testing.assert_array_equal(first.behavior_time_s, second.behavior_time_s)
    assert first.users() == second.users()
    assert first.ads() == second.ads()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store", "whole"]
