from __future__ import annotations

import signal
from pathlib import Path

import pytest

from ctrkit.core.child_files import save_measurement
from ctrkit.core.child_records import ChildError, Measurement, WorkerExit
from ctrkit.core.progress import Progress, Stage
from ctrkit.core.records import VERDICTS
from ctrkit.core.stops import EXIT_CODE
from ctrkit.supervise.endings import (
    End,
    Result,
    batches_done,
    classify_error,
    judge_end,
    judge_exit,
    judge_hang,
    judge_script_end,
    read_result,
    worker_that_died,
)
from ctrkit.supervise.watchdog import Verdict

HANG = Verdict("deadlock", "no progress in stage 'shutdown' for 20 s")
HANDOVER = """  File "/v/torch/utils/data/dataloader.py", line 1464, in _get_data
    success, data = self._try_get_data()
                    ^^^^^^{error}
"""
RERAISED = """  File "/v/torch/utils/data/dataloader.py", line 1520, in _process_data
    data.reraise()
{error}: Caught {error} in DataLoader worker process 0.
"""


@pytest.mark.parametrize(
    ("message", "verdict"),
    [
        ("RuntimeError: DataLoader worker (pid(s) 12, 13) exited unexpectedly", "worker-died"),
        ("RuntimeError: DataLoader worker (pid 12) is killed by signal: Killed. ", "worker-died"),
        ("RuntimeError: DataLoader worker (pid 7) is killed by signal: Bus error. It is possible "
         "that dataloader's workers are out of shared memory.", "worker-died"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", "out-of-memory"),
        ("torch.AcceleratorError: CUDA error: out of memory", "out-of-memory"),
        ("RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
         "out-of-memory"),
        ("RuntimeError: MPS backend out of memory (MPS allocated: 9 GB)", "out-of-memory"),
        ("RuntimeError: Caught MemoryError in DataLoader worker process 0.", "out-of-memory"),
        ("RuntimeError: [enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory",
         "out-of-memory"),
        ("OSError: [Errno 12] Cannot allocate memory", "out-of-memory"),
        ("numpy._core._exceptions._ArrayMemoryError: Unable to allocate 9 TiB", "out-of-memory"),
        ("ValueError: no such column", "crashed"),
    ],
)  # fmt: skip
def test_an_error_is_classified_by_what_it_proves(message: str, verdict: str) -> None:
    assert classify_error(message) == verdict
    assert verdict in VERDICTS


@pytest.mark.parametrize("error", ["ConnectionResetError", "EOFError", "FileNotFoundError"])
@pytest.mark.parametrize("before", ["\n", "object refcount : 2\nobject type name: "])
def test_a_broken_handover_is_a_dead_worker(error: str, before: str) -> None:
    stderr = HANDOVER.format(error=before + error) + "lost sys.stderr\n"
    assert classify_error("lost sys.stderr", stderr) == "worker-died"
    assert "worker died while" in judge_exit(1, None, Stage.STEP, stderr).reason


def test_a_pipe_that_breaks_while_a_worker_starts_is_a_dead_worker() -> None:
    stderr = """  File "/l/multiprocessing/popen_forkserver.py", line 58, in _launch
    f.write(buf.getbuffer())
BrokenPipeError: [Errno 32] Broken pipe
"""
    assert classify_error("BrokenPipeError: [Errno 32]", stderr) == "worker-died"
    assert "died while it started" in judge_exit(1, None, Stage.FIRST_BATCH, stderr).reason


def test_a_connection_error_of_user_code_is_its_own() -> None:
    for stderr in ("EOFError\n", RERAISED.format(error="EOFError")):
        assert judge_exit(1, None, Stage.STEP, stderr).verdict == "crashed"


def test_exit_codes() -> None:
    whole, part = Result(complete=True), Result(complete=False)
    assert judge_exit(0, whole, Stage.DONE) == Verdict("ok", "")
    assert judge_exit(0, part, Stage.STEP).verdict == "crashed"
    assert judge_exit(0, None, Stage.IMPORT).verdict == "crashed"
    assert judge_exit(1, None, Stage.IMPORT, "x\nImportError: no torch\n") == Verdict(
        "setup-failed",
        "it ended with exit code 1 in stage 'import': ImportError: no torch",
    )
    assert judge_exit(1, part, Stage.STEP).verdict == "crashed"
    assert "cause unknown" in judge_exit(-signal.SIGKILL, part, Stage.STEP).reason
    assert "SIGSEGV" in judge_exit(-signal.SIGSEGV, whole, Stage.DONE).reason
    assert "after its result was complete" in judge_exit(-signal.SIGSEGV, whole, Stage.DONE).reason


def test_what_the_child_reports_counts_before_its_exit_code() -> None:
    error = ChildError(verdict="setup-failed", stage="data", message="OSError: gone", traceback="")
    found = judge_exit(0, Result(complete=False, error=error), Stage.DATA)
    assert found == Verdict("setup-failed", "OSError: gone (in stage 'data')")


def test_a_hang_after_a_complete_result_is_a_shutdown_hang() -> None:
    assert judge_hang(HANG, None) == HANG
    assert judge_hang(HANG, Result(complete=False)) == HANG
    found = judge_hang(HANG, Result(complete=True))
    assert found.verdict == "shutdown-hang"
    assert HANG.reason in found.reason


def test_a_hang_after_an_error_has_the_error_s_verdict() -> None:
    error = ChildError(verdict="crashed", stage="step", message="out of memory", traceback="")
    found = judge_hang(HANG, Result(complete=False, error=error))
    assert found.verdict == "out-of-memory"
    assert "did not end" in found.reason


def test_results_of_every_kind_are_read(tmp_path: Path) -> None:
    path = tmp_path / "measurement.json"
    assert read_result(tmp_path) is None
    path.write_text("{")
    assert read_result(tmp_path) is None
    save_measurement(path, Measurement(kind="full"))
    assert read_result(tmp_path) == Result(complete=False)
    error = ChildError(verdict="crashed", stage="step", message="m", traceback="t")
    save_measurement(path, Measurement(kind="full", error=error))
    assert read_result(tmp_path) == Result(complete=False, error=error)
    # a kind whose result is another file still writes its error into the measurement
    assert read_result(tmp_path, "outcome.json") == Result(complete=False, error=error)
    (tmp_path / "outcome.json").write_text('{"finished": true}')
    assert read_result(tmp_path, "outcome.json") == Result(complete=True)
    (tmp_path / "outcome.json").unlink()
    save_measurement(path, Measurement(kind="train"))
    assert read_result(tmp_path, "outcome.json") is None


def died(*dead: WorkerExit, message: str, verdict: str = "crashed", kills: int = 0) -> Verdict:
    error = ChildError(
        verdict=verdict, stage="step", message=message, traceback="", dead_workers=list(dead)
    )
    return judge_exit(1, Result(complete=False, error=error), Stage.SHUTDOWN, "", kills)


UNEXPECTED = "RuntimeError: DataLoader worker (pid(s) 12) exited unexpectedly"


def test_the_exit_code_of_a_worker_says_how_it_died() -> None:
    found = died(WorkerExit(pid=12, worker=1, exit_code=3), message=UNEXPECTED)
    assert found.verdict == "worker-died"
    assert found.reason.startswith("worker 1 (pid 12) ended with exit code 3 (in stage 'step')")
    found = died(WorkerExit(pid=12, worker=None, exit_code=-signal.SIGSEGV), message="EOFError: ")
    assert found.verdict == "worker-died"
    assert found.reason.startswith("a worker (pid 12) was killed by SIGSEGV")
    found = died(WorkerExit(pid=12, worker=0, exit_code=0), message=UNEXPECTED)
    assert "ended with exit code 0" in found.reason


def test_a_killed_worker_has_no_known_cause_unless_a_counter_proves_memory() -> None:
    killed = WorkerExit(pid=12, worker=0, exit_code=-signal.SIGKILL)
    found = died(killed, message=UNEXPECTED)
    assert found.verdict == "worker-died"
    assert "SIGKILL, cause unknown" in found.reason
    found = died(killed, message=UNEXPECTED, kills=1)
    assert found.verdict == "out-of-memory"
    assert "oom_kill" in found.reason
    assert judge_exit(-signal.SIGKILL, None, Stage.STEP, "", 2).verdict == "out-of-memory"
    assert judge_exit(-signal.SIGTERM, None, Stage.STEP, "", 2).verdict == "crashed"


def test_workers_that_a_failing_loop_ended_are_not_to_blame() -> None:
    ended = [
        WorkerExit(pid=12, worker=0, exit_code=-signal.SIGTERM),
        WorkerExit(pid=13, worker=1, exit_code=1),
    ]
    assert died(*ended, message="ValueError: no such column").verdict == "crashed"
    first = WorkerExit(pid=11, worker=2, exit_code=-signal.SIGSEGV)
    assert worker_that_died([*ended, first], told=False) == first
    assert worker_that_died([], told=True) is None


def test_a_rank_is_called_a_rank() -> None:
    rank = WorkerExit(pid=12, worker=1, exit_code=-signal.SIGKILL, kind="rank")
    found = died(rank, message="the other ranks were ended", verdict="worker-died")
    assert found.verdict == "worker-died"
    assert found.reason.startswith("rank 1 (pid 12) was killed by SIGKILL")


@pytest.mark.parametrize(
    ("end", "is_run", "verdict"),
    [
        (End(hang=HANG), True, "deadlock"),
        (End(cut=True), False, "skipped"),
        (End(interrupted=True), True, "skipped"),
        (End(exit_code=1, interrupted=True), False, "skipped"),  # a trial has nothing to save
        (End(exit_code=1, interrupted=True), True, "crashed"),  # it failed while it saved
        (End(exit_code=0, interrupted=True), True, "skipped"),
        (End(exit_code=EXIT_CODE), True, "skipped"),  # it was asked directly
        (End(exit_code=EXIT_CODE), False, "crashed"),
    ],
)
def test_the_end_of_watching(end: End, is_run: bool, verdict: str) -> None:
    found, kept = judge_end(end, None, Stage.STEP, "boom", 0, is_run=is_run)
    assert found.verdict == verdict
    assert kept.interrupted is ((verdict == "skipped" and not end.cut) or end.interrupted)


def progressed(step: int, steps: int) -> Progress:
    return Progress(pid=1, stage=Stage.STEP, epoch=2, step=step, steps=steps, rows=0, writes=1,
                    written_s=0.0, wait_s=0.0, loss=0.0)  # fmt: skip


@pytest.mark.parametrize(
    ("step", "steps", "words"),
    [
        (0, 250, ""),
        (31, 250, "after 31 of 250 batches of epoch 2"),
        (250, 250, "after 250 batches of epoch 2"),
        (1, 0, "after 1 batch of epoch 2"),
    ],
)
def test_how_far_a_script_got(step: int, steps: int, words: str) -> None:
    assert batches_done(progressed(step, steps)) == words


def test_a_script_that_ends_early_is_said_to_have_ended_after_so_many_batches() -> None:
    done = batches_done(progressed(31, 250))
    end, stderr = End(exit_code=3), "loss diverged"
    trial, _ = judge_end(end, Result(), Stage.STEP, stderr, 0, is_run=False, done=done)
    assert trial.reason == (
        "it ended with exit code 3 after 31 of 250 batches of epoch 2: loss diverged"
    )
    assert judge_script_end(end, Stage.SHUTDOWN, stderr, 0, done).reason == trial.reason
    within = judge_script_end(end, Stage.CHECKPOINT, stderr, 0, done).reason
    assert "in stage 'checkpoint', after 31 of 250 batches" in within


def test_a_trial_that_asks_is_told_to_have_no_input() -> None:
    asked = "EOFError: EOF when reading a line"
    end = End(exit_code=1)
    trial, _ = judge_end(end, None, Stage.DATA, asked, 0, is_run=False)
    assert trial.verdict == "setup-failed"
    assert "a trial has no input" in trial.reason
    run, _ = judge_end(end, None, Stage.DATA, asked, 0, is_run=True)
    assert "a trial" not in run.reason
