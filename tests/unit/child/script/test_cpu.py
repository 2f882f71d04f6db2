"""What a process and its children have burnt never falls, whoever of them ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ctrkit.child.script.cpu import family_cpu_s

_BURN = "import time\nwhile time.process_time() < 0.5: pass\n"
_PARENT = (
    f"import subprocess, sys\nsubprocess.run([sys.executable, '-S', '-c', {_BURN!r}])\ninput()"
)

pytestmark = pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs /proc")


def now_s() -> float:
    seconds = family_cpu_s()
    assert seconds is not None
    return seconds


def test_a_child_that_has_ended_still_counts() -> None:
    before_s = now_s()
    subprocess.run([sys.executable, "-S", "-c", _BURN], check=True)
    assert now_s() - before_s >= 0.4


def test_a_grandchild_that_has_ended_counts_with_its_parent_that_lives() -> None:
    before_s = now_s()
    with subprocess.Popen([sys.executable, "-S", "-c", _PARENT], stdin=subprocess.PIPE) as parent:
        try:
            while now_s() - before_s < 0.4:  # it burns, and then it ends
                os.sched_yield()
            assert parent.poll() is None
            living_s = now_s()
        finally:
            parent.communicate(b"\n", timeout=30)
    assert now_s() >= living_s - 0.05
