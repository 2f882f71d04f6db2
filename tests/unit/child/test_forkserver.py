"""What the fork server checks about accelerators; none is used."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from ctrkit.child.forkserver import device_problem

QUIET = ["/dev/null", "/dev/pts/0", "socket:[7]", "/dev/shm/psm_1"]


def cuda(*, initialized: bool = False, bad_fork: bool = False) -> SimpleNamespace:
    return SimpleNamespace(is_initialized=lambda: initialized, _is_in_bad_fork=lambda: bad_fork)


@pytest.mark.parametrize(
    ("made", "opened", "words"),
    [
        (cuda(), QUIET, ""),
        (cuda(initialized=True), QUIET, "uses CUDA"),
        (cuda(bad_fork=True), QUIET, "has asked for CUDA"),
        (cuda(), [*QUIET, "/dev/nvidiactl", "/dev/nvidia0"], "/dev/nvidia0, /dev/nvidiactl open"),
        (cuda(), [*QUIET, "/dev/dxg"], "/dev/dxg open"),
        (cuda(), [*QUIET, "/dev/kfd"], "/dev/kfd open"),
    ],
)
def test_nothing_is_forked_from_a_process_that_has_touched_an_accelerator(made, opened, words):
    problem = device_problem(made, opened)
    assert words in problem
    assert bool(problem) == bool(words)


IMPORTS = """
import json, os, sys
from unittest import mock
import torch
with mock.patch("torch.cuda._lazy_init", side_effect=AssertionError("CUDA was initialised")), \\
     mock.patch("torch._C._cuda_getDeviceCount", create=True,
                side_effect=AssertionError("the driver was asked")):
    from ctrkit.child.entry import import_libraries
    from ctrkit.child.forkserver import _forget_the_server
    import_libraries()
    _forget_the_server()
    print(json.dumps([torch.cuda.is_initialized(), torch.cuda._is_in_bad_fork()]))
"""


def test_what_the_server_imports_and_does_asks_cuda_for_nothing():
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [False, False]
