"""The supervisor with real children: every way to end, and nothing is left of them."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path

import psutil
import pytest
from support import alive, left_of

from ctrkit.core.config import Cell, ChildSpec, TrialKind, WorkloadSpec
from ctrkit.core.lifeline import RUN_ID_VARIABLE, sockets_folder
from ctrkit.core.progress import read_progress
from ctrkit.supervise.gpu import GpuSample
from ctrkit.supervise.stop import GRACE_S, StopRequest, handle_interrupts
from ctrkit.supervise.supervisor import Outcome, run_child
from ctrkit.supervise.time_limits import StageTimes, TimeLimits
from ctrkit.supervise.watching import Tick

CHILDREN = Path(__file__).parent / "children" / "supervised.py"
SHORT = TimeLimits().with_stall_timeout(1.0)
LINUX = sys.platform.startswith("linux")


def command(folder: Path, behaviour: str) -> list[str]:
    return [sys.executable, str(CHILDREN), str(folder), behaviour]


def supervise(
    tmp_path: Path,
    behaviour: str,
    *,
    time_limits: TimeLimits | None = None,
    deadline_s: float | None = None,
    on_tick: Callable[[Tick], None] | None = None,
    stop: StopRequest | None = None,
    kind: TrialKind = "full",
    grace_s: float = GRACE_S,
    times: StageTimes | None = None,
) -> Outcome:
    """Run a behaviour, and check what must hold after every one of them."""
    folder = tmp_path / "child"
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    outcome = run_child(
        ChildSpec(kind=kind, folder=str(folder), workload=WorkloadSpec(), cell=Cell()),
        time_limits=time_limits or TimeLimits(),
        evidence_folder=tmp_path / "evidence",
        deadline_s=None if deadline_s is None else time.monotonic() + deadline_s,
        on_tick=on_tick,
        stop=stop,
        grace_s=grace_s,
        times=times,
        argv=command(folder, behaviour),
    )
    assert outcome.left == ()
    assert {process.pid for process in psutil.Process().children(recursive=True)} <= before
    assert not living(str(folder)), "a process of the family is left"
    spec = json.loads((folder / "spec.json").read_text())
    assert 0 < spec["spawned_at_s"] <= time.monotonic()
    assert (tmp_path / "evidence").exists() == (outcome.verdict not in ("ok", "skipped"))
    return outcome


def living(folder: str) -> list[int]:
    """Processes with a command line or an environment that leads to this folder's child."""
    run_ids = {
        process.info["environ"].get(RUN_ID_VARIABLE)
        for process in psutil.process_iter(["environ", "cmdline"])
        if process.info["environ"] and folder in " ".join(process.info["cmdline"] or [])
    } - {None}
    return [
        process.pid
        for process in psutil.process_iter(["environ", "status"])
        if process.info["environ"] and process.info["environ"].get(RUN_ID_VARIABLE) in run_ids
    ]


def test_gpus_are_read_for_a_child_on_one_by_its_tree_with_a_made_up_reader(tmp_path: Path) -> None:
    asked: list[set[int]] = []

    class MadeUp:
        def read(self, pids: Collection[int], *, uses_first: bool = False) -> tuple[GpuSample, ...]:
            asked.append(set(pids))
            return (GpuSample(index=0, name="made up", busy_share=0.5, memory_bytes=7),)

    def run(device: str, name: str) -> tuple[Outcome, list[Tick]]:
        ticks: list[Tick] = []
        folder = tmp_path / name
        outcome = run_child(
            ChildSpec(kind="full", folder=str(folder), workload=WorkloadSpec(),
                      cell=Cell(device=device)),
            time_limits=TimeLimits(), evidence_folder=tmp_path / "evidence",
            on_tick=ticks.append, argv=command(folder, "slow"), gpus=MadeUp,
        )  # fmt: skip
        return outcome, ticks

    outcome, ticks = run("cuda", "on-gpu")
    assert outcome.gpu_use.memory_bytes == 7
    assert outcome.gpu_use.mean("busy_share") == 0.5
    assert asked
    assert all(len(pids) >= 1 for pids in asked)
    assert any(tick.gpus is not None for tick in ticks)
    asked.clear()
    outcome, _ = run("cpu", "on-cpu")
    assert (outcome.gpu_use.samples, asked) == (0, [])


def test_a_healthy_child_is_ok(tmp_path: Path) -> None:
    ticks: list[Tick] = []
    outcome = supervise(tmp_path, "healthy", on_tick=ticks.append)
    assert (outcome.verdict, outcome.exit_code, outcome.complete) == ("ok", 0, True)
    assert outcome.evidence is None
    assert outcome.progress is not None
    assert (outcome.progress.step, outcome.progress.rows) == (10, 80)
    assert outcome.peak_rss_bytes is not None
    assert outcome.peak_rss_bytes > 1_000_000
    assert any(tick.sample is not None for tick in ticks)


def test_slow_but_progressing_is_never_a_verdict(tmp_path: Path) -> None:
    assert supervise(tmp_path, "slow", time_limits=SHORT).verdict == "ok"


def test_a_wait_for_ever_is_a_deadlock_with_its_line(tmp_path: Path) -> None:
    outcome = supervise(tmp_path, "waiting", time_limits=SHORT)
    assert outcome.verdict == "deadlock"
    assert "stage 'step'" in outcome.reason
    assert "main process" in outcome.reason
    assert "supervised.py:" in outcome.reason
    assert outcome.cause is not None
    assert outcome.cause.guilty == "the main process"
    assert "in waiting" in outcome.reason
    evidence = tmp_path / "evidence"
    processes = json.loads((evidence / "processes.json").read_text())
    assert processes[0]["command"][-1] == "waiting"
    stacks = next(evidence.glob("stacks-*.txt")).read_text()
    assert "in waiting" in stacks
    verdict = json.loads((evidence / "verdict.json").read_text())
    assert verdict["verdict"] == "deadlock"
    assert verdict["progress"]["step"] == 3


def test_a_spin_is_stalled_after_one_extension(tmp_path: Path) -> None:
    outcome = supervise(tmp_path, "spinning", time_limits=SHORT)
    assert outcome.verdict == "stalled"
    assert "cores all the while" in outcome.reason
    assert "in spinning" in outcome.reason


def test_a_stopped_process_is_stalled(tmp_path: Path) -> None:
    outcome = supervise(tmp_path, "stopped", time_limits=SHORT)
    assert outcome.verdict == "stalled"
    assert "is stopped" in outcome.reason


def test_a_pause_from_outside_is_told_of_and_is_no_verdict(tmp_path: Path) -> None:
    def pause() -> None:
        wait_until(lambda: (tmp_path / "child" / "progress.bin").exists())
        progress = read_progress(tmp_path / "child" / "progress.bin")
        assert progress is not None
        os.kill(progress.pid, signal.SIGSTOP)
        time.sleep(6)
        os.kill(progress.pid, signal.SIGCONT)

    pauser = threading.Thread(target=pause)
    pauser.start()
    outcome = supervise(tmp_path, "slow", time_limits=TimeLimits().with_stall_timeout(8.0))
    pauser.join()
    assert outcome.verdict == "ok"
    assert 2 < outcome.stopped_s < 8


def test_a_host_that_slept_is_told_of_and_is_no_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began_s = time.monotonic()

    def slept_s() -> float:
        return 7 * 3600.0 if time.monotonic() - began_s > 1.5 else 0.0

    for module in ("supervisor", "watching"):
        monkeypatch.setattr(f"ctrkit.supervise.{module}.host_slept_s", slept_s)
    outcome = supervise(tmp_path, "slow", time_limits=TimeLimits().with_stall_timeout(2.0))
    assert outcome.verdict == "ok"
    assert outcome.host_slept_s == 7 * 3600


@pytest.mark.skipif(not LINUX, reason="another system restarts the call")
def test_a_hang_that_the_signal_wakes_keeps_its_verdict(tmp_path: Path) -> None:
    outcome = supervise(tmp_path, "wakes_on_a_signal", time_limits=SHORT)
    assert outcome.verdict == "deadlock"
    assert "the evidence signal woke it" in outcome.reason


@pytest.mark.parametrize(
    ("behaviour", "verdict", "exit_code", "words"),
    [
        ("killed", "crashed", -signal.SIGKILL, "killed by SIGKILL, cause unknown"),
        ("segfault", "crashed", -signal.SIGSEGV, "Segmentation fault (at supervised.py:"),
        ("exits_with_3", "crashed", 3, "exit code 3"),
        ("raises", "setup-failed", 1, "ValueError: no such column 'price'"),
        ("reports_an_error", "out-of-memory", 1, "MPS backend out of memory"),
        ("partial", "crashed", 0, "without a complete result"),
    ],
)
def test_a_death_is_named(
    tmp_path: Path, behaviour: str, verdict: str, exit_code: int, words: str
) -> None:
    outcome = supervise(tmp_path, behaviour)
    assert (outcome.verdict, outcome.exit_code) == (verdict, exit_code)
    assert words in outcome.reason
    assert not outcome.complete
    if behaviour == "segfault":
        assert "Segmentation fault" in (tmp_path / "evidence" / "stderr.txt").read_text()


def test_a_child_that_cannot_start_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "child"
    spec = ChildSpec(kind="full", folder=str(folder), workload=WorkloadSpec(), cell=Cell())
    before = set(psutil.Process().children(recursive=True))
    with pytest.raises(FileNotFoundError):
        run_child(
            spec,
            time_limits=SHORT,
            evidence_folder=tmp_path / "evidence",
            argv=[str(tmp_path / "no-such-program")],
        )
    assert set(psutil.Process().children(recursive=True)) == before


def test_grandchildren_in_sessions_of_their_own_are_ended(tmp_path: Path) -> None:
    assert supervise(tmp_path, "leaves_a_grandchild").verdict == "ok"
    pids = (tmp_path / "child" / "grandchildren").read_text().split()
    assert len(pids) == 3
    assert [pid for pid in pids if alive(int(pid))] == []
    assert left_of(tmp_path) == []


def test_a_complete_result_whose_process_stays_is_a_shutdown_hang(tmp_path: Path) -> None:
    outcome = supervise(tmp_path, "never_exits", time_limits=SHORT)
    assert (outcome.verdict, outcome.complete) == ("shutdown-hang", True)
    assert "the result is complete" in outcome.reason


def test_a_fork_while_a_lock_is_held_is_a_deadlock_of_the_worker(tmp_path: Path) -> None:
    outcome = supervise(
        tmp_path, "fork_with_lock", time_limits=TimeLimits(workers=2).with_stall_timeout(4.0)
    )
    assert outcome.verdict == "deadlock"
    assert "worker " in outcome.reason
    assert "in __getitem__" in outcome.reason
    assert len(list((tmp_path / "evidence").glob("stacks-*.txt"))) == 3


def test_a_killed_worker_is_worker_died(tmp_path: Path) -> None:
    outcome = supervise(tmp_path, "worker_dies")
    assert outcome.verdict == "worker-died"
    assert outcome.exit_code == 1


def test_the_deadline_cuts_what_progresses(tmp_path: Path) -> None:
    outcome = supervise(tmp_path, "endless", deadline_s=1.5)
    assert (outcome.verdict, outcome.reason) == ("skipped", "the budget ended first")
    assert outcome.cut_by_budget
    assert (tmp_path / "child" / "measurement.json").exists()


def test_a_hang_outranks_the_deadline(tmp_path: Path) -> None:
    # silent and idle at the deadline, its stage's budget not yet over
    outcome = supervise(
        tmp_path, "waiting", time_limits=TimeLimits().with_stall_timeout(6.4), deadline_s=5.8
    )
    assert outcome.verdict == "deadlock"
    assert not outcome.cut_by_budget


def test_an_interrupt_ends_a_probe_at_once(tmp_path: Path) -> None:
    with handle_interrupts(graceful=False) as stop:
        threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
        outcome = supervise(tmp_path, "endless", stop=stop)
    assert (outcome.verdict, outcome.reason) == ("skipped", "interrupted")
    assert outcome.interrupted


def test_the_first_interrupt_lets_a_run_save(tmp_path: Path) -> None:
    with handle_interrupts(graceful=True) as stop:
        threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        outcome = supervise(tmp_path, "finishes_on_sigint", stop=stop, kind="train")
    assert (outcome.verdict, outcome.interrupted, outcome.exit_code) == ("skipped", True, 0)
    assert (tmp_path / "child" / "measurement.json").exists()


def test_the_second_interrupt_ends_a_run(tmp_path: Path) -> None:
    stop = StopRequest(graceful=True)
    stop.request()
    threading.Timer(2.0, stop.request).start()
    # before its handler stands, the child dies of the first one: both are an interrupted end
    outcome = supervise(tmp_path, "endless", stop=stop, kind="train")
    assert (outcome.verdict, outcome.interrupted) == ("skipped", True)


def test_a_failure_while_it_stops_is_told_as_one(tmp_path: Path) -> None:
    stop = StopRequest(graceful=True)
    threading.Timer(1.5, stop.request).start()
    outcome = supervise(tmp_path, "fails_on_sigint", stop=stop, kind="train")
    assert (outcome.verdict, outcome.interrupted) == ("crashed", True)
    assert "no room for the checkpoint" in outcome.reason


def test_what_does_not_stop_within_the_grace_is_ended(tmp_path: Path) -> None:
    stop = StopRequest(graceful=True)
    threading.Timer(1.5, stop.request, (signal.SIGTERM,)).start()
    outcome = supervise(tmp_path, "ignores_sigint", stop=stop, kind="train", grace_s=2.0)
    assert (outcome.verdict, outcome.cut_by_grace) == ("skipped", True)


@pytest.mark.parametrize("behaviour", ["computes_metrics", "writes_slowly"])
def test_a_healthy_stage_that_was_judged_once_is_not_judged_again(
    tmp_path: Path, behaviour: str
) -> None:
    limits = TimeLimits(validation_s=1.0, checkpoint_s=1.0, max_step_s=1.0)
    times = StageTimes(is_run=True)
    first = supervise(tmp_path, behaviour, time_limits=limits, times=times)
    assert first.verdict in ("deadlock", "stalled")
    assert first.progress is not None
    times = times.seen(first.longest_s).after_verdict(first.progress.stage, first.silent_s)
    shutil.rmtree(tmp_path / "evidence")
    second = supervise(tmp_path, behaviour, time_limits=limits, times=times)
    assert second.verdict == "ok"
    assert second.longest_s[first.progress.stage] > 3


def test_what_only_watches_fails_and_the_run_goes_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Output and progress are removed under it, /proc cannot be read, the display is gone."""

    def fails(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    def remove(tick: Tick) -> None:
        for name in ("stdout.txt", "stderr.txt", "progress.bin"):
            (tmp_path / "child" / name).unlink(missing_ok=True)
        fails()

    monkeypatch.setattr("ctrkit.supervise.sampler.TreeSampler.sample", fails)
    outcome = supervise(tmp_path, "slow", time_limits=SHORT, on_tick=remove)
    assert outcome.verdict == "ok"
    said = capfd.readouterr().err
    assert said.count("what tells of the run failed (OSError") == 1
    assert said.count("a look at the run's processes failed (OSError") == 1


@pytest.mark.parametrize("error", [OSError(errno.EIO, "I/O"), OSError(errno.ESTALE, "stale")])
def test_who_cannot_read_the_progress_judges_nothing(
    tmp_path: Path, error: OSError, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(path: object) -> None:
        raise error

    monkeypatch.setattr("ctrkit.supervise.watching.read_progress", unreadable)
    assert supervise(tmp_path, "slow", time_limits=SHORT).verdict == "ok"


def test_a_verdict_stands_where_its_evidence_cannot_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "evidence").mkdir()  # what `supervise` looks for
    monkeypatch.setattr("ctrkit.supervise.supervisor.save_tails", full)
    monkeypatch.setattr("ctrkit.supervise.supervisor.write_json", full)
    outcome = supervise(tmp_path, "waiting", time_limits=SHORT)
    assert outcome.verdict == "deadlock"
    assert "the evidence is incomplete" in outcome.reason


def test_endless_output_is_dropped(tmp_path: Path) -> None:
    assert supervise(tmp_path, "talks_too_much").verdict == "ok"
    output = tmp_path / "child" / "stdout.txt"
    assert output.stat().st_size < 64_000_000
    text = output.read_text()
    assert "ctrkit dropped what was here" in text
    assert text.endswith("the end\n")


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no /dev/shm on this system")
def test_shared_memory_of_a_killed_family_is_removed_and_of_others_not(tmp_path: Path) -> None:
    foreign = Path("/dev/shm/psm_ctrkit_test_foreign")
    foreign.touch()
    try:
        assert supervise(tmp_path, "leaks_shared_memory", time_limits=SHORT).verdict == "deadlock"
        segment = (tmp_path / "child" / "segment").read_text()
        assert not (Path("/dev/shm") / segment).exists()
        assert foreign.exists()
    finally:
        foreign.unlink()


def test_the_sockets_of_killed_processes_are_removed(tmp_path: Path) -> None:
    assert supervise(tmp_path, "leaves_a_socket").verdict == "ok"
    socket = Path((tmp_path / "child" / "socket").read_text())
    assert socket.parent.name.startswith("ctrkit-")
    assert not socket.parent.exists()


SUPERVISOR = """
import sys
from pathlib import Path
from ctrkit.core.config import Cell, ChildSpec, WorkloadSpec
from ctrkit.supervise.time_limits import StageTimes, TimeLimits
from ctrkit.supervise.supervisor import run_child
folder = Path(sys.argv[1])
spec = ChildSpec(kind="full", folder=str(folder), workload=WorkloadSpec(), cell=Cell())
run_child(spec, time_limits=TimeLimits(), evidence_folder=folder / "evidence", argv=sys.argv[2:])
"""


def test_the_family_ends_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "child"
    argv = [sys.executable, "-c", SUPERVISOR, str(folder), *command(folder, "busy_family")]
    supervisor = subprocess.Popen(argv)
    wait_until(lambda: (folder / "ready").exists())
    family = psutil.Process(supervisor.pid).children(recursive=True)
    assert len(family) == 4  # guard, child, its two
    run_id = next(filter(None, (process.environ().get(RUN_ID_VARIABLE) for process in family)))
    assert sockets_folder(run_id).is_dir()
    supervisor.kill()
    supervisor.wait()
    wait_until(lambda: not any(p.is_running() and p.status() != "zombie" for p in family))
    assert not sockets_folder(run_id).exists()


def wait_until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "waited in vain"
        time.sleep(0.05)
