"""`explain` on plain scripts that hang: state, cause and line; and it changes nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from hang_corpus import load_corpus

from ctrkit.core.errors import UsageError
from ctrkit.supervise.explain.movement import State
from ctrkit.supervise.explain.outside import Explanation, explain_process
from ctrkit.supervise.explain.stack_readers import py_spy_program
from ctrkit.supervise.explain.stacks import Frame

LINUX = sys.platform.startswith("linux")
pytestmark = pytest.mark.skipif(not LINUX, reason="reads /proc")
SCRIPT = Path(__file__).parent / "children" / "train_on.py"
CORPUS = {scenario.name: scenario for scenario in load_corpus()}

# name: workers, start method, the state, and what the cause says
HANGS = {
    "hang_in_collate": (2, "fork", State.WAITING, "waits to be woken by a thread"),
    "lock_over_fork": (2, "fork", State.WAITING, "lock"),
    "file_lock": (1, "fork", State.WAITING, "file lock"),
    "silent_server": (1, "spawn", State.WAITING, "a socket to 127.0.0.1:"),
    "polls_for_a_file": (1, "fork", State.WAITING, "timer"),
    "spin_in_python": (1, "fork", State.BURNING, "burns CPU in a loop"),
    "stopped": (1, "fork", State.STOPPED, "is stopped"),
    "main_deadlock": (0, "", State.WAITING, "waits to be woken by a thread"),
    "thread_at_shutdown": (0, "", State.WAITING, "threading._shutdown"),
    "gil_held_in_c": (1, "fork", State.WAITING, "GIL"),
}


@contextmanager
def script(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A training that its user started himself; ended afterwards with all that it started."""
    with open(folder / "out.txt", "wb") as out:
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=folder, stdout=out, stderr=subprocess.STDOUT
        )
        try:
            yield process
        finally:
            end_with_children(process)


def end_with_children(process: subprocess.Popen[bytes]) -> None:
    """Kill a family, but for multiprocessing's tracker: it removes their semaphores, and ends."""
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    trackers = []
    for one in family:
        with suppress(psutil.NoSuchProcess):  # it may have ended by itself
            if "resource_tracker" in " ".join(one.cmdline()):
                trackers.append(one)
            else:
                one.kill()
    process.wait(timeout=60)
    _, left = psutil.wait_procs(trackers, timeout=30)
    for one in left:
        one.kill()


def wait_until_silent(out: Path, after: str = "step", silent_s: float = 4.0) -> None:
    """Until it has printed steps and then nothing for a while: spawned workers start slowly."""
    deadline_s = time.monotonic() + 90
    while time.monotonic() < deadline_s:
        if after in out.read_text() and time.time() - out.stat().st_mtime > silent_s:
            return
        time.sleep(0.2)
    raise AssertionError(f"it does not hang: {out.read_text()[-300:]}")


def wait_until_idle(pid: int) -> None:
    """Until a family uses no CPU for a second: on a busy machine silence alone is no hang yet."""

    def used_s() -> float:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        return sum(sum(one.cpu_times()[:2]) for one in family)

    deadline_s, before_s = time.monotonic() + 60, used_s()
    while time.monotonic() < deadline_s:
        time.sleep(1)
        if used_s() - before_s < 0.05:
            return
        before_s = used_s()
    raise AssertionError(f"process {pid} burns CPU")


@pytest.fixture(scope="module")
def explained(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], tuple[Explanation, Explanation]]:
    """Each hang as it is explained with Python stacks, and without."""

    def explain(name: str) -> tuple[Explanation, Explanation]:
        workers, method, state, _ = HANGS[name]
        folder = tmp_path_factory.mktemp(name)
        path = CORPUS[name].path
        with script(folder, str(SCRIPT), str(path), str(workers), method or "-") as process:
            first_batch = name == "lock_over_fork"  # hangs before there is a step
            wait_until_silent(folder / "out.txt", "begins" if first_batch else "step")
            if state is not State.BURNING:
                wait_until_idle(process.pid)
            return (
                explain_process(process.pid, wait_s=2.0),
                explain_process(process.pid, wait_s=2.0, use_stacks=False),
            )

    with ThreadPoolExecutor(5) as pool:
        found = dict(zip(HANGS, pool.map(explain, HANGS), strict=True))
    return found.__getitem__


@pytest.mark.skipif(py_spy_program() is None, reason="needs py-spy")
@pytest.mark.parametrize("name", HANGS)
def test_a_hang_is_explained_with_its_line(
    explained: Callable[[str], tuple[Explanation, Explanation]], name: str
) -> None:
    found, _ = explained(name)
    _, _, state, says = HANGS[name]
    assert found.movement is not None
    assert found.movement.state is state
    assert found.cause is not None
    assert says in found.cause.sentence
    lines = CORPUS[name].guilty_lines
    assert any(line in found.cause.sentence for line in lines), found.cause.sentence
    assert found.read_by == "py-spy"
    assert found.missing is None


@pytest.mark.parametrize("name", HANGS)
def test_without_stacks_the_guilty_process_and_its_wait_are_told(
    explained: Callable[[str], tuple[Explanation, Explanation]], name: str
) -> None:
    _, found = explained(name)
    workers, _, state, _ = HANGS[name]
    assert found.movement is not None
    assert found.movement.state is state
    assert found.cause is not None
    assert found.cause.place is None
    if workers and name != "gil_held_in_c":  # there, the main process waits in a handshake
        assert found.scene is not None
        pids = {one.pid for one in found.scene.living_workers()}
        # a worker that polls may be awake when it is looked at: then the wait for it is told
        told = name == "polls_for_a_file" and any(
            f"with pid {pid} " in found.cause.sentence for pid in pids
        )
        assert found.cause.guilty_pid in pids or told
    assert found.scene is not None
    assert len(found.scene.living_workers()) == workers


@pytest.mark.parametrize("stacks", [True, False])
def test_a_slow_training_is_progressing(tmp_path: Path, stacks: bool) -> None:
    path = CORPUS["slow_by_sleep"].path
    with script(tmp_path, str(SCRIPT), str(path), "1", "fork", "50") as process:
        deadline_s = time.monotonic() + 60
        while not (tmp_path / "out.txt").stat().st_size and time.monotonic() < deadline_s:
            time.sleep(0.2)
        found = explain_process(process.pid, wait_s=4.0, use_stacks=stacks)
    assert found.movement is not None
    assert found.movement.state is State.PROGRESSING, found.movement.because


def test_a_worker_or_a_shell_leads_to_the_training(tmp_path: Path) -> None:
    shell = f"{sys.executable} {SCRIPT} {CORPUS['file_lock'].path} 1 fork; true"
    with open(tmp_path / "out.txt", "wb") as out:
        process = subprocess.Popen(["sh", "-c", shell], cwd=tmp_path, stdout=out)
    try:
        wait_until_silent(tmp_path / "out.txt")
        (training,) = psutil.Process(process.pid).children()
        worker = next(iter(training.children()))
        for pid in (process.pid, training.pid, worker.pid):
            found = explain_process(pid)
            assert found.family.main_pid == training.pid
            assert (found.family.note == "") == (pid == training.pid)
            assert found.cause is not None
            assert found.cause.guilty_pid == worker.pid
    finally:
        end_with_children(process)


@pytest.mark.skipif(py_spy_program() is None, reason="needs py-spy")
def test_of_ranks_the_one_that_the_others_wait_for_is_explained(tmp_path: Path) -> None:
    ranks = SCRIPT.with_name("train_ranks.py")
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    with script(tmp_path, *launcher, str(ranks), "hang") as process:
        deadline_s = time.monotonic() + 90
        while "begins" not in (tmp_path / "out.txt").read_text() and time.monotonic() < deadline_s:
            time.sleep(0.2)
        time.sleep(3)
        found = explain_process(process.pid, wait_s=2.0)
    assert sorted(found.family.ranks.values()) == [0, 1]
    assert found.movement is not None
    assert found.movement.state is State.WAITING
    assert found.cause is not None
    assert found.cause.sentence.startswith("rank 1 (pid ")
    assert "in wait_for " in found.cause.sentence
    assert found.cause.sentence.endswith("the other ranks wait for it")


WATCHES_ITSELF = """
import os, signal, time
fd = os.open("signals.txt", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
def note(number, frame):
    os.write(fd, f"{number}\\n".encode())
for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, note)
for number in range(signal.SIGRTMIN, signal.SIGRTMAX + 1):
    signal.signal(number, note)
print("ready", flush=True)
while True:
    time.sleep(0.01)
"""


def test_nothing_is_signalled_and_nothing_is_written(tmp_path: Path) -> None:
    file = tmp_path / "watches.py"
    file.write_text(WATCHES_ITSELF)
    with script(tmp_path, str(file)) as process:
        while not (tmp_path / "out.txt").stat().st_size:
            time.sleep(0.05)
        before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
        command = [str(Path(sys.executable).with_name("ctrkit")), "explain", str(process.pid)]
        done = subprocess.run(
            [*command, "--wait", "1s", "--json"], capture_output=True, text=True, timeout=60,
            check=False, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["main_pid"] == process.pid
        assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
        assert (tmp_path / "signals.txt").read_text() == ""
        os.kill(process.pid, signal.SIGUSR1)  # the test can fail: a signal is seen
        time.sleep(0.3)
        assert (tmp_path / "signals.txt").read_text() != ""


def test_who_cannot_be_looked_at_is_one_clear_line() -> None:
    ended = subprocess.Popen([sys.executable, "-c", "pass"])
    ended.wait(timeout=60)
    with pytest.raises(UsageError, match="there is no process"):
        explain_process(ended.pid)
    with pytest.raises(UsageError, match="this command itself"):
        explain_process(os.getpid())
    zombie = subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"])
    deadline_s = time.monotonic() + 60
    while psutil.Process(zombie.pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    try:
        with pytest.raises(UsageError, match=rf"is a zombie.*explain {os.getpid()}$"):
            explain_process(zombie.pid)
    finally:
        zombie.wait(timeout=60)


def test_a_process_that_is_not_python_is_shown_all_the_same() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            found = explain_process(process.pid)
        finally:
            process.kill()
    assert found.scene is None
    assert [one.pid for one in found.processes] == [process.pid]


def test_frames_are_named_as_pythons_own_dumps_name_them() -> None:
    from ctrkit.supervise.explain.stack_readers import parse_py_spy

    names = ("Rows.__getitem__", "main", "_Fetcher.fetch.<locals>.<listcomp>")
    frames = [{"filename": "/a.py", "line": 3, "name": name} for name in names]
    (thread,) = parse_py_spy(json.dumps([{"os_thread_id": 5, "frames": frames}]), 5)
    expected = ("__getitem__", "main", "<listcomp>")
    assert thread == tuple(Frame("/a.py", 3, name) for name in expected)
