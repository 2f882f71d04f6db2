from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from ctrkit.supervise.sampler import TreeSampler, host_slept_s

BURN = "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass"


def test_a_tree_is_sampled_and_what_ended_still_counts() -> None:
    parent = "import subprocess, sys; subprocess.run(sys.argv[1:]); input()"
    argv = [
        sys.executable,
        "-c",
        parent,
        sys.executable,
        "-c",
        BURN + "\nimport time\ntime.sleep(1)",
    ]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE)
    try:
        sampler = TreeSampler(process.pid)
        deadline_s, most = time.monotonic() + 20, 0
        before = sampler.sample(time.monotonic())
        while time.monotonic() < deadline_s:
            sample = sampler.sample(time.monotonic())
            assert sample.cpu_s >= before.cpu_s
            assert sample.wanted_s >= sample.cpu_s
            most, before = max(most, len(sample.processes)), sample
            if most == 2 and len(sample.processes) == 1:
                break
            time.sleep(0.05)
        assert most == 2
        assert before.cpu_s >= 0.25  # the ended child's
        assert sampler.peak_bytes is not None
        assert sampler.peak_bytes > 1_000_000
    finally:
        process.communicate(b"\n")
    assert TreeSampler(process.pid).sample(0.0).processes == ()


def test_the_host_has_not_slept_between_two_readings() -> None:
    first = host_slept_s()
    assert first >= 0
    assert abs(host_slept_s() - first) < 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells")
def test_a_timer_is_told_from_a_pipe() -> None:
    select = "import select; select.select([], [], [], 60)"  # time.sleep of Python 3.10
    for code, on_timer in (
        ("import time; time.sleep(60)", True), (select, True), ("input()", False)
    ):  # fmt: skip
        process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
        try:
            sampler, deadline_s = TreeSampler(process.pid), time.monotonic() + 60
            while True:
                (found,) = sampler.sample(time.monotonic(), weigh=False, waits=True).processes
                waits = found.on_timer or "pipe" in wchan(process.pid)
                if waits or time.monotonic() > deadline_s:
                    break
                time.sleep(0.05)
            assert found.on_timer == on_timer
            (found,) = sampler.sample(time.monotonic()).processes
            assert not found.on_timer, "looked at where it was not asked for"
        finally:
            process.kill()
            process.communicate()


def wchan(pid: int) -> str:
    return Path(f"/proc/{pid}/wchan").read_text()
