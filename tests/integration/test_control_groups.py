"""Real control groups: a CPU quota, a cpuset, a memory limit, and decisions that respect them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path("/sys/fs/cgroup")
CODE = """
import json, sys
from ctrkit.core.environment import describe_machine, physical_cores, usable_cores
from ctrkit.probe.hazards.limits import read_limits
from ctrkit.core.axes import default_workers
limits = read_limits()
print(json.dumps([usable_cores(), physical_cores(), describe_machine().get("cpu_quota_cores"),
                  limits.cpu_quota_cores, default_workers(physical_cores(), usable_cores())]))
"""


Enter = Callable[[], None]
"""Moves the process that calls it into a control group."""


def made_group(controller: str, v1: dict[str, str], v2: dict[str, str]) -> Iterator[Enter]:
    """A new control group with these files written; a test is skipped where none can be made."""
    is_v1 = (ROOT / controller / "cgroup.procs").exists()
    folder = (ROOT / controller if is_v1 else ROOT) / f"ctrkit-test-{uuid.uuid4().hex[:8]}"
    try:
        folder.mkdir()
        for name, text in (v1 if is_v1 else v2).items():
            (folder / name).write_text(text)
    except OSError as error:
        if folder.exists():
            folder.rmdir()
        pytest.skip(f"no control group can be made here: {error}")

    def enter() -> None:
        (folder / "cgroup.procs").write_text(str(os.getpid()))

    yield enter
    folder.rmdir()


@pytest.fixture
def half_a_core() -> Iterator[Enter]:
    yield from made_group(
        "cpu",
        {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "50000"},
        {"cpu.max": "50000 100000"},
    )


@pytest.fixture
def first_core() -> Iterator[Enter]:
    yield from made_group("cpuset", {"cpuset.cpus": "0", "cpuset.mems": "0"}, {"cpuset.cpus": "0"})


@pytest.fixture
def some_memory() -> Iterator[Enter]:
    """300 MB: this process's own imports fit."""
    most = str(300 * 2**20)
    yield from made_group("memory", {"memory.limit_in_bytes": most}, {"memory.max": most})


def run(code: str, enter: Enter) -> Any:
    """What code prints as JSON, run in a control group."""
    done = subprocess.run(
        [sys.executable, "-c", code], preexec_fn=enter, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_half_a_core_is_one_thread_and_no_workers(half_a_core: Enter) -> None:
    assert run(CODE, half_a_core) == [0.5, 1, 0.5, 0.5, [0]]


def test_other_processes_take_no_more_than_the_cores_of_the_cpuset(first_core: Enter) -> None:
    code = """
import json, time
from ctrkit.supervise.host_conditions import look_at_host, other_cores
begin = look_at_host()
time.sleep(2)
print(json.dumps(other_cores(begin, look_at_host())))
"""
    if (os.cpu_count() or 1) < 2:
        pytest.skip("needs a core that is not in the cpuset")
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(3)]
    try:
        assert run(code, first_core) <= 1.1  # one core is all there is to take
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


def test_memory_is_what_the_control_group_leaves(some_memory: Enter) -> None:
    code = """
import json
from ctrkit.supervise.host import memory_bytes, read_host
print(json.dumps([memory_bytes(), read_host().available_bytes]))
"""
    total, left = run(code, some_memory)
    assert total == 300 * 2**20
    assert 0 < left < total
