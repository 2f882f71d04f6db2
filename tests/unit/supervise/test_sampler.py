from __future__ import annotations

import subprocess
import sys
import time

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
