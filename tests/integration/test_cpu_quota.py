"""A real CPU quota: threads, workers and the description of the machine keep to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path("/sys/fs/cgroup")
CODE = """
import json, sys
from ctrkit.core.environment import describe_machine, physical_cores, usable_cores
from ctrkit.probe.hazards.limits import read_limits
from ctrkit.core.cell import default_workers
limits = read_limits()
print(json.dumps([usable_cores(), physical_cores(), describe_machine().get("cpu_quota_cores"),
                  limits.cpu_quota_cores, default_workers(physical_cores(), usable_cores())]))
"""


@pytest.fixture
def half_a_core() -> Iterator[Path]:
    """The file that moves a process into a control group with half a core."""
    v1 = (ROOT / "cpu" / "cpu.cfs_quota_us").exists()
    folder = (ROOT / "cpu" if v1 else ROOT) / f"ctrkit-test-{uuid.uuid4().hex[:8]}"
    try:
        folder.mkdir()
        if v1:
            (folder / "cpu.cfs_period_us").write_text("100000")
            (folder / "cpu.cfs_quota_us").write_text("50000")
        else:
            (folder / "cpu.max").write_text("50000 100000")
    except OSError as error:
        if folder.exists():
            folder.rmdir()
        pytest.skip(f"no control group can be made here: {error}")
    yield folder / "cgroup.procs"
    folder.rmdir()


def test_half_a_core_is_one_thread_and_no_workers(half_a_core: Path) -> None:
    def enter() -> None:
        half_a_core.write_text(str(os.getpid()))

    done = subprocess.run(
        [sys.executable, "-c", CODE], preexec_fn=enter, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [0.5, 1, 0.5, 0.5, [0]]
