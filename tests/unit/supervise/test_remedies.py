"""Whether a run that was ended restarts, and in which cell."""

from __future__ import annotations

import dataclasses
import signal
from typing import Any

import pytest

from ctrkit.core.child_records import ChildError, WorkerExit
from ctrkit.core.config import Cell, make_cell
from ctrkit.supervise.remedies import Remedy, advise, safest_cell
from ctrkit.supervise.supervisor import Outcome

ALONE = make_cell(threads=2, batch_size=64)
WORKERS = make_cell(
    loader="batches", workers=2, start_method="fork", persistent=True, pin=True, threads=2,
    batch_size=64,
)  # fmt: skip
MDAF = {"loaders": ("rows", "batches", "thread", "resident"), "axes": ("loader", "workers")}


def outcome(verdict: str, exit_code: int | None = None, message: str | None = None) -> Outcome:
    error = None
    if message is not None:
        error = ChildError(verdict="crashed", stage="step", message=message, traceback="")
    return Outcome(
        verdict=verdict, reason="", exit_code=exit_code, wall_s=1.0, cpu_s=1.0,
        peak_rss_bytes=None, complete=False, evidence=None, progress=None, error=error,
    )  # fmt: skip


@pytest.mark.parametrize("verdict", ["deadlock", "stalled", "worker-died", "shutdown-hang"])
@pytest.mark.parametrize("message", [None, "RuntimeError: DataLoader worker (pid 3) is killed"])
def test_a_hang_or_death_is_answered_without_workers(verdict: str, message: str | None) -> None:
    end = outcome(verdict, 1 if message else None, message)
    assert advise(end, WORKERS).remedy is Remedy.SAFER_CELL
    assert advise(end, ALONE).remedy is Remedy.SAME_CELL


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_from_outside_says_nothing_of_the_cell(number: int) -> None:
    assert advise(outcome("crashed", -number), WORKERS).remedy is Remedy.SAME_CELL


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT])
def test_a_signal_from_within_does(number: int) -> None:
    assert advise(outcome("crashed", -number), WORKERS).remedy is Remedy.SAFER_CELL
    assert advise(outcome("crashed", -number), ALONE).remedy is Remedy.SAME_CELL


@pytest.mark.parametrize(
    ("verdict", "exit_code", "message"),
    [
        ("crashed", 1, "ValueError: no such column"),
        ("crashed", None, "ValueError: no such column"),  # and then it hung
        ("crashed", -signal.SIGABRT, "ValueError: no such column"),  # and then it aborted
        ("crashed", 3, None),
        ("crashed", 0, None),
        ("setup-failed", 1, "OSError: no such bucket"),
        ("refused", None, None),
    ],
)
def test_what_would_come_again_is_not_tried_again(
    verdict: str, exit_code: int | None, message: str | None
) -> None:
    for cell in (ALONE, WORKERS):
        assert advise(outcome(verdict, exit_code, message), cell).remedy is Remedy.NONE


@pytest.mark.parametrize(
    ("exit_code", "message", "with_workers", "alone"),
    [
        (1, "MemoryError: Caught MemoryError in DataLoader worker", "SAFER_CELL", "NONE"),
        (-signal.SIGKILL, None, "SAFER_CELL", "SAME_CELL"),
        (1, "OutOfMemoryError: CUDA out of memory", "NONE", "NONE"),
        (1, "RuntimeError: MPS backend out of memory", "NONE", "NONE"),
    ],
)
def test_memory_is_saved_where_workers_took_it(
    exit_code: int, message: str | None, with_workers: str, alone: str
) -> None:
    end = outcome("out-of-memory", exit_code, message)
    assert advise(end, WORKERS).remedy is Remedy[with_workers]
    assert advise(end, ALONE).remedy is Remedy[alone]


def without_workers(cell: Cell, **axes: Any) -> Cell:
    values = {
        "device": cell.device, "loader": cell.loader, "pin": cell.pin, "threads": cell.threads,
        "batch_size": cell.batch_size, "nproc": cell.nproc,
    }  # fmt: skip
    return make_cell(**{**values, **axes})


def test_the_thread_loader_is_the_safest() -> None:
    found = safest_cell(WORKERS, tied=(), **MDAF)
    assert found == without_workers(WORKERS, loader="thread")
    assert safest_cell(ALONE, tied=(), **MDAF) == ALONE


def test_of_the_tied_cells_the_first_without_workers_comes_first() -> None:
    tied = (
        make_cell(loader="rows", workers=1, threads=2, batch_size=64),
        make_cell(loader="rows", threads=2, batch_size=128),  # another experiment
        make_cell(device="mps", loader="rows", threads=2, batch_size=64),  # another machine
        make_cell(loader="resident", threads=1, batch_size=64),
        make_cell(loader="thread", threads=2, batch_size=64),
    )
    assert safest_cell(WORKERS, tied=tied, **MDAF) == tied[3]
    assert safest_cell(WORKERS, tied=tied, loaders=("thread",), axes=MDAF["axes"]) == tied[4]


def test_a_users_loader_is_only_given_what_it_takes() -> None:
    custom = make_cell(loader="custom", workers=2, threads=2, batch_size=64)
    own = {"tied": (), "loaders": ("custom",)}
    assert safest_cell(custom, axes=("workers", "batch_size"), **own) == without_workers(custom)
    assert safest_cell(custom, axes=("batch_size",), **own) == custom


def test_the_death_of_a_rank_says_nothing_of_the_loader() -> None:
    end = outcome("worker-died", 1, "Connection reset by peer")
    dead = WorkerExit(pid=3, worker=1, exit_code=-9, kind="rank")
    assert end.error is not None
    error = dataclasses.replace(end.error, dead_workers=[dead])
    advice = advise(dataclasses.replace(end, error=error), WORKERS)
    assert advice.remedy is Remedy.SAME_CELL
