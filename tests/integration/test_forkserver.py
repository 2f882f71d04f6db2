"""Trials forked from a server: what they are, how they end, and what is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
import pytest

from ctrkit.core.config import ChildSpec, WindowPlan, WorkloadSpec, make_cell
from ctrkit.supervise.forkserver import SWITCH, ForkServer, fork_server
from ctrkit.supervise.supervisor import Outcome, run_child
from ctrkit.supervise.time_limits import TimeLimits

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks on Linux only")

# written by the user's file while it is imported
LOOK = """
import faulthandler, gc, json, multiprocessing, os, random, resource, signal, sys, threading
import numpy, torch

def status(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(line for line in lines if line.startswith(name + ":")).split(":")[1].strip()

def opened():
    folder, found = os.environ["CTRKIT_CHILD_FOLDER"], []
    for number in os.listdir("/proc/self/fd"):
        if os.path.exists(f"/proc/self/fd/{number}"):
            path = os.readlink(f"/proc/self/fd/{number}")
            found.append(path.replace(folder, "FOLDER").replace(str(os.getpid()), "PID"))
    return sorted(found)

main = sys.modules["__main__"]
SAME = {
    "modules": sorted(sys.modules), "argv": [sys.argv[0], *sys.argv[2:]], "path": sys.path,
    "orig_argv": [*sys.orig_argv[:-1], os.path.basename(sys.orig_argv[-1])], "cwd": os.getcwd(),
    "flags": str(sys.flags), "main": main.__spec__.name, "file": main.__file__,
    "environment": sorted(os.environ), "leads": os.getsid(0) == os.getpid() == os.getpgrp(),
    "parent": os.getppid(), "signals": {
        str(n): str(getattr(signal.getsignal(n), "__name__", signal.getsignal(n)))
        for n in sorted(signal.valid_signals())},
    "caught": status("SigCgt"), "ignored": status("SigIgn"), "blocked": status("SigBlk"),
    "limits": {n: resource.getrlimit(getattr(resource, n)) for n in dir(resource)
               if n.startswith("RLIMIT_")},
    "umask": status("Umask"), "affinity": sorted(os.sched_getaffinity(0)),
    "descriptors": opened(),
    "faulthandler": faulthandler.is_enabled(),
    "gc": [gc.isenabled(), gc.get_freeze_count() > 100_000],
    "streams": [str(s.encoding) + s.errors + str(s.line_buffering) + str(s.isatty())
                for s in (sys.stdin, sys.stdout, sys.stderr)],
    "threads": [torch.get_num_threads(), torch.get_num_interop_threads(),
                [t.name for t in threading.enumerate()]],
    "native": threading.main_thread().native_id == os.getpid(),
    "start": multiprocessing.get_start_method(allow_none=True),
    "process": repr(multiprocessing.current_process()),
    "shown": sorted(filter(None, (v.partition("=")[0] for v in
                    open("/proc/self/environ").read().split(chr(0))))),
}
OWN = {
    "torch": torch.rand(1).item(), "random": random.random(), "numpy": numpy.random.rand(),
    "authkey": multiprocessing.current_process().authkey.hex(),
    "pid": os.getpid(), "run": [v for v in open("/proc/self/environ").read().split(chr(0))
                                if v.startswith("CTRKIT_RUN_ID=")],
}
print("said on stdout")
"""
LOADER = """
import json, os
def make_loader(*, workers=0, start_method=None, batch_size=4):
    json.dump({"same": SAME, "own": OWN}, open(OUT.replace("PID", str(os.getpid())), "w"))
    data = torch.utils.data.TensorDataset(torch.zeros(64, 2))
    return torch.utils.data.DataLoader(data, batch_size=batch_size, num_workers=workers,
                                       multiprocessing_context=start_method)
"""
WINDOWS = WindowPlan(window_s=0.05, max_steps=3, boundary=False)
Run = Callable[..., Outcome]


@contextmanager
def _plain_environment() -> Iterator[None]:
    """Without what pytest sets anew in each phase of a test: no two environments would be alike."""
    with mock.patch.dict(os.environ):
        os.environ.pop("PYTEST_CURRENT_TEST", None)
        yield


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    with _plain_environment(), fork_server() as made:
        assert made is not None
        assert made.prepare(), made.problem
        yield made


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a trial of a file's `make_loader`."""
    launches = iter(range(99))

    def launch(server: ForkServer | None, source: str, **axes: Any) -> Outcome:
        file = tmp_path / "loader_of_user.py"
        file.write_text(textwrap.dedent(source))
        number = next(launches)
        with _plain_environment():
            return _run(file, number, server, axes)

    def _run(file: Path, number: int, server: ForkServer | None, axes: Any) -> Outcome:
        return run_child(
            ChildSpec(
                kind="full", folder=str(tmp_path / f"child-{number}"), windows=WINDOWS,
                workload=WorkloadSpec(target=f"{file}:make_loader"),
                cell=make_cell(loader="custom", batch_size=4, **axes),
            ),
            time_limits=TimeLimits(),
            evidence_folder=tmp_path / f"evidence-{number}",
            server=server,
        )  # fmt: skip

    return launch


def test_a_forked_trial_is_what_a_fresh_one_is(
    server: ForkServer, run: Run, tmp_path: Path
) -> None:
    source = f"OUT = {str(tmp_path / 'facts-PID.json')!r}\n" + LOOK + LOADER
    outcomes = [run(one, source) for one in (None, server, server)]
    assert [(o.verdict, o.forked, o.exit_code) for o in outcomes] == [
        ("ok", False, 0), ("ok", True, 0), ("ok", True, 0),
    ]  # fmt: skip
    facts = [json.loads(p.read_text()) for p in tmp_path.glob("facts-*.json")]
    fresh, *forked = sorted(facts, key=lambda f: f["own"]["pid"])
    assert len(forked) == 2
    for one in forked:
        mine, theirs = dict(one["same"]), dict(fresh["same"])
        # a module of the standard library or of ours may be there already, no other
        more = set(mine.pop("modules")) ^ set(theirs.pop("modules"))
        assert more <= {"ctrkit.child.forkserver", "ctrkit.core.fork_requests"}, more
        assert mine == theirs
    for name in ("random", "numpy", "torch", "authkey", "pid", "run"):
        assert len({str(one["own"][name]) for one in facts}) == 3, name
    for number in range(3):
        assert (tmp_path / f"child-{number}/stdout.txt").read_text() == "said on stdout\n"


@pytest.mark.parametrize("start_method", ["spawn", "fork", "forkserver"])
def test_its_workers_start_in_each_way(server: ForkServer, run: Run, start_method: str) -> None:
    source = "import torch\nSAME = OWN = {}\nOUT = '/dev/null'\n" + LOADER
    workers = 2 if start_method == "fork" else 1  # any other worker imports torch anew
    outcome = run(server, source, workers=workers, start_method=start_method)
    assert (outcome.verdict, outcome.forked) == ("ok", True), outcome.reason


@pytest.mark.parametrize(
    ("death", "code"),
    [("os.kill(os.getpid(), 9)", -9), ("os.kill(os.getpid(), 11)", -11), ("os._exit(7)", 7)],
)
def test_its_end_is_seen_as_of_any_child(
    server: ForkServer, run: Run, tmp_path: Path, death: str, code: int
) -> None:
    outcome = run(server, f"import os\ndef make_loader():\n    {death}\n")
    assert (outcome.forked, outcome.exit_code) == (True, code)
    assert outcome.verdict != "ok"
    if code == -11:  # the handler of a crash wrote into the trial's own stderr
        assert "make_loader" in (tmp_path / "child-0/stderr.txt").read_text()
    assert run(server, "def make_loader():\n    return [1, 2, 3]\n").forked


def test_a_hang_of_it_is_explained_and_ended(server: ForkServer, run: Run, tmp_path: Path) -> None:
    """Its stacks are asked for, and what left its session is found by the environment it shows."""
    source = """
        import os, time
        def make_loader():
            if os.fork() == 0:
                os.setsid()
                open(os.environ["CTRKIT_CHILD_FOLDER"] + "/strayed", "w").write(str(os.getpid()))
                if os.fork() == 0:
                    time.sleep(60)
                os._exit(0)
            os.wait()
            time.sleep(0.3)
            raise ValueError("after it has strayed")
    """
    outcome = run(server, source)
    assert (outcome.verdict, outcome.forked) == ("setup-failed", True)
    sid = int((tmp_path / "child-0/strayed").read_text())
    assert not [p for p in psutil.process_iter() if _sid(p.pid) == sid]


def test_memory_is_that_of_a_fresh_one(server: ForkServer, run: Run) -> None:
    source = """
        import time, torch
        KEPT = torch.ones(40_000_000)
        def make_loader():
            def batches():
                for _ in range(3):
                    time.sleep(1)
                    yield KEPT[:4]
            return batches()
    """
    fresh, forked = run(None, source), run(server, source)
    assert forked.forked
    assert fresh.peak_rss_bytes
    # 160 MB of its own and at least 100 MB of Python and torch, of which half was told else
    assert forked.peak_rss_bytes == pytest.approx(fresh.peak_rss_bytes, rel=0.1)


def test_a_variable_that_may_be_read_at_an_import_starts_it_anew(
    server: ForkServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    outcome = run(server, "def make_loader():\n    return [1, 2, 3]\n")
    assert (outcome.verdict, outcome.forked) == ("ok", False)


def test_another_working_folder_starts_it_anew(
    server: ForkServer, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = run(server, "def make_loader():\n    return [1, 2, 3]\n")
    assert (outcome.verdict, outcome.forked) == ("ok", False)


def test_a_server_that_dies_is_done_without(run: Run) -> None:
    source = "def make_loader():\n    return [1, 2, 3]\n"
    with _plain_environment(), fork_server() as server:
        assert server is not None
        assert server.prepare()
        pid = server.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        outcomes = [run(server, source), run(server, source)]
        assert server.problem
    assert [(o.verdict, o.forked) for o in outcomes] == [("ok", False), ("ok", False)]
    assert not psutil.pid_exists(pid)


def test_a_thread_in_the_server_forbids_to_fork(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A `sitecustomize` of the user's may start one."""
    (tmp_path / "sitecustomize.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with fork_server() as server:
        assert server is not None
        assert not server.prepare()
        assert "1 threads run beside the main one" in server.problem


def test_who_asks_for_the_end_does_not_wait_for_the_server() -> None:
    with fork_server(lambda: True) as server:
        assert server is not None
        began_s = time.monotonic()
        assert not server.prepare()
        assert time.monotonic() - began_s < 10


def test_it_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, "0")
    with fork_server() as server:
        assert server is None


def test_it_ends_with_its_supervisor() -> None:
    with ThreadPoolExecutor(2) as pool:
        ended = [pool.submit(ends_with, number) for number in (signal.SIGKILL, signal.SIGTERM)]
    for one in ended:
        one.result()


def ends_with(number: signal.Signals) -> None:
    source = """
        import time
        from ctrkit.supervise.forkserver import fork_server
        with fork_server() as server:
            assert server.prepare()
            print(server.pid, flush=True)
            time.sleep(60)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(source)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    process.send_signal(number)
    process.wait(timeout=10)
    process.stdout.close()
    deadline_s = time.monotonic() + 10
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def _sid(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return -1
