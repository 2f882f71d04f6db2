"""What Linux knows about real processes without asking them."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from ctrkit.supervise.explain import passive
from ctrkit.supervise.explain.scene import Process

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@contextmanager
def running(code: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that says that it is ready; killed afterwards."""
    process = subprocess.Popen(
        [sys.executable, "-c", f"import sys; {code}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        process.stdout.read(1)
        time.sleep(0.2)
        yield process
    finally:
        process.kill()
        process.communicate(timeout=60)


def look(process: subprocess.Popen[bytes]) -> Process:
    return passive.look(process.pid, lambda: False)[0]


READY = "sys.stdout.write('r'); sys.stdout.flush(); "


def test_a_reader_of_a_pipe_is_told_from_a_sleeper() -> None:
    with running(READY + "sys.stdin.read()") as reader:
        wait = look(reader).wait
    if wait is None or wait.syscall is None:
        pytest.skip("the system does not show system calls")
    assert wait.syscall == "read"
    assert (wait.target or "").startswith("pipe:")
    with running("import time; " + READY + "time.sleep(600)") as sleeper:
        assert (look(sleeper).wait or wait).syscall in ("clock_nanosleep", "nanosleep", "pselect6")


def test_a_spinning_process_burns_and_a_sleeping_one_does_not() -> None:
    with running(READY + "\nwhile True: pass") as spinning:
        assert look(spinning).is_burning
    with running(READY + "sys.stdin.read()") as sleeping:
        assert not look(sleeping).is_burning


def test_a_holder_of_the_gil_is_told_by_the_one_that_asks_for_it() -> None:
    """The C call blocks with the GIL; the thread has slept, and now wants it back."""
    code = (
        "import ctypes, threading, time; mutex = ctypes.create_string_buffer(64); "
        "lock = ctypes.PyDLL(None).pthread_mutex_lock; lock(mutex); "
        "threading.Thread(target=time.sleep, args=(0.1,), daemon=True).start(); "
    )
    with running(code + READY + "lock(mutex)") as holder:
        assert look(holder).holds_gil
    with running(code + READY + "sys.stdin.read()") as reader:
        assert not look(reader).holds_gil


def test_a_zombie_keeps_its_exit_code() -> None:
    with running(
        READY + "import os\nos._exit(7) if os.fork() == 0 else sys.stdin.read()"
    ) as parent:
        (zombie,) = passive.look(parent.pid, lambda: False)[1:]
        assert zombie.is_dead
        assert zombie.exit_code == 7
        assert passive.exit_code(parent.pid) in (None, 0)


def test_signals_that_are_caught_or_ignored() -> None:
    ignores = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    with running(ignores + READY + "sys.stdin.read()") as deaf:
        assert look(deaf).ignores_sigterm
        assert passive.catches(deaf.pid, signal.SIGTERM) is False
        assert passive.catches(deaf.pid, signal.SIGINT) is True
    with running(READY + "sys.stdin.read()") as obeys:
        assert not look(obeys).ignores_sigterm


def test_limits_that_are_set_are_told() -> None:
    code = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (77, 77)); "
    with running(code + READY + "sys.stdin.read()") as process:
        assert passive.limits_of(process.pid)["RLIMIT_NOFILE"] == 77


def test_who_is_gone_is_no_error() -> None:
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait(timeout=60)
    assert not psutil.pid_exists(process.pid)
    assert passive.look(process.pid, lambda: False) == []
    assert passive.limits_of(process.pid) == {}
    assert passive.catches(process.pid, signal.SIGTERM) is None
    assert passive.exit_code(os.getpid()) is not None


def test_a_poll_names_what_it_polls() -> None:
    code = "import select; p = select.poll(); p.register(0, 1); " + READY + "p.poll()"
    with running(code) as process:
        wait = look(process).wait
    if wait is None or wait.syscall is None:
        pytest.skip("the system does not show system calls")
    assert wait.syscall in ("poll", "ppoll")
    assert (wait.target or "").startswith("pipe:")


def test_where_the_call_may_not_be_read_the_kernels_function_tells_it() -> None:
    with running("import time; " + READY + "time.sleep(600)") as sleeper:
        found = passive._call_of_kernel_function(sleeper.pid, sleeper.pid)
    if found is None:
        pytest.skip("the system does not show kernel functions")
    assert found == "clock_nanosleep"


@pytest.mark.parametrize(
    "asks",
    ["input()", "import readline; input()", "import select; select.select([0], [], [])",
     "import os; os.read(0, 1)"],
)  # fmt: skip
def test_one_that_waits_for_keys_is_told_from_one_that_waits_for_a_pipe(asks: str) -> None:
    master, slave = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", asks], stdin=slave, stdout=slave)
    try:
        deadline_s = time.monotonic() + 10
        while not passive.waits_for_keys(process.pid) and time.monotonic() < deadline_s:
            time.sleep(0.05)
        if passive._wait(process.pid, process.pid, passive._Libraries(0)).syscall is None:
            pytest.skip("the system does not show system calls")
        assert passive.waits_for_keys(process.pid)
    finally:
        process.kill()
        process.wait(timeout=20)
        os.close(master)
        os.close(slave)
    with running(READY + asks) as piped:
        assert not passive.waits_for_keys(piped.pid)
