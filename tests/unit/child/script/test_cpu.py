"""CPU seconds of a family, as Linux and as macOS tell them."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ctrkit.child.script.cpu import (
    Children,
    _children_here,
    _timebase,
    children_of_libproc,
    children_of_proc,
    family_cpu_s,
)

SPIN = """
import time
end = time.process_time() + 0.3
while time.process_time() < end:
    pass
print(1, flush=True)
input()
"""


_BURN = "import time\nwhile time.process_time() < 0.5: pass\n"
_PARENT = (
    f"import subprocess, sys\nsubprocess.run([sys.executable, '-S', '-c', {_BURN!r}])\ninput()"
)


def own_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


class Libproc:
    """In place of macOS's library: these children by parent, and their user and system ticks."""

    def __init__(self, children: dict[int, list[int]], ticks: dict[int, tuple[int, int]]) -> None:
        self.children, self.ticks = children, ticks

    def proc_listpids(self, kind: int, pid: int, buffer: Any, size: int) -> int:
        assert (kind, size) == (6, ctypes.sizeof(buffer))
        found = self.children.get(pid, [])
        buffer[: len(found)] = found
        return len(found) * ctypes.sizeof(ctypes.c_int)

    def proc_pid_rusage(self, pid: int, flavor: int, buffer: Any) -> int:
        assert flavor == 1
        if pid not in self.ticks:
            return -1
        buffer[0] = buffer[1] = 2**63  # the name of the program
        buffer[2], buffer[3] = self.ticks[pid]
        buffer[12] = buffer[13] = 1_000_000  # of its children that have ended
        return 0


def test_as_macos_tells_children_and_theirs_are_added_in_seconds() -> None:
    tick_s = 125 / 3 / 1e9
    second = round(1 / tick_s)
    libproc = Libproc(
        {os.getpid(): [11, 12, 13], 12: [14]},
        {11: (second, 0), 12: (2 * second, second), 14: (0, 4 * second)},  # 13 has ended
    )
    before_s = own_s()
    total_s = family_cpu_s(children_of_libproc(libproc, tick_s))
    assert total_s is not None
    assert total_s - before_s == pytest.approx(8, abs=0.5)


def test_the_clock_of_macos_is_asked_for_its_unit() -> None:
    class System:
        def mach_timebase_info(self, ratio: Any) -> None:
            ratio[0], ratio[1] = 125, 3

    assert _timebase(System()) == pytest.approx(41.667e-9, rel=1e-4)


def test_a_family_that_is_a_circle_ends() -> None:
    me = os.getpid()
    children = Children(lambda pid: {me: [5], 5: [me, 5]}.get(pid, []), lambda _: 1.0)
    total_s = family_cpu_s(children)
    assert total_s is not None
    assert total_s - own_s() == pytest.approx(1, abs=0.5)


def test_a_system_that_tells_nothing_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "isdir", lambda _: False)
    assert _children_here("freebsd14") is None
    monkeypatch.setattr(ctypes, "CDLL", lambda *_: (_ for _ in ()).throw(OSError("no libproc")))
    assert _children_here("darwin") is None


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="reads /proc")
def test_as_linux_tells_a_living_child_counts() -> None:
    before_s = family_cpu_s()
    child = subprocess.Popen(
        [sys.executable, "-c", SPIN], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"1\n"
        time.sleep(0.05)
        total_s = family_cpu_s(children_of_proc())
    finally:
        child.communicate(b"\n", timeout=30)
    assert total_s is not None
    assert before_s is not None
    assert total_s - before_s >= 0.25


def now_s() -> float:
    seconds = family_cpu_s()
    assert seconds is not None
    return seconds


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="reads /proc")
def test_a_child_that_has_ended_still_counts() -> None:
    before_s = now_s()
    subprocess.run([sys.executable, "-S", "-c", _BURN], check=True)
    assert now_s() - before_s >= 0.4


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="reads /proc")
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
