"""What a failure says about cells that share something with the one that failed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ctrkit.core.child_records import Measurement
from ctrkit.core.config import Cell, make_cell
from ctrkit.probe.cell_failures import failed_with_fewer, failure_words
from ctrkit.probe.trials import Trial, TrialRequest, TrialResult


def of(workers: int, **axes: Any) -> Cell:
    return make_cell(
        loader="script", workers=workers, **{"start_method": "fork", "prefetch": 2} | axes
    )


def trial(cell: Cell, verdict: str = "ok", stage: str = "first batch") -> Trial:
    measured = Measurement(kind="full", throughput_s=5.0, throughput_steps=10, complete=True)
    result = TrialResult(
        verdict=verdict, reason="Bus error", stage=stage,
        measurement=measured if verdict == "ok" else None,
    )  # fmt: skip
    return Trial(request=TrialRequest(kind="full", cell=cell), result=result, launch=1)


@pytest.mark.parametrize(
    ("worked", "failed", "asked", "excluded"),
    [
        ([], 4, 4, True),  # a twin of the failed cell
        ([2], 8, 16, True),
        ([2], 8, 4, False),
        ([8], 8, 16, False),  # another cell with so many has worked: it is not their number
        ([16], 8, 32, False),
    ],
)
def test_a_failure_with_some_workers_excludes_more_of_them(
    worked: list[int], failed: int, asked: int, excluded: bool
) -> None:
    trials = [*(trial(of(n, persistent=True)) for n in worked), trial(of(failed), "worker-died")]
    assert (failed_with_fewer(of(asked), trials) is not None) is excluded
    assert failed_with_fewer(of(asked, start_method="spawn"), trials) is None
    assert failed_with_fewer(of(asked, batch_size=3), trials) is None
    assert failed_with_fewer(of(asked, precision="bf16"), trials) is None
    assert failed_with_fewer(of(0, start_method=None, prefetch=None), trials) is None


def test_a_cell_that_keeps_less_in_memory_is_still_tried() -> None:
    """Batches made ahead fill /dev/shm as workers do."""
    trials = [trial(of(8, prefetch=4), "worker-died")]
    assert failed_with_fewer(of(8), trials) is None
    assert failed_with_fewer(of(16, prefetch=4), trials) is not None


def test_workers_that_are_kept_may_fail_between_two_epochs_by_that() -> None:
    trials = [trial(of(4, persistent=True), "deadlock", stage="epoch boundary")]
    assert failed_with_fewer(of(4), trials) is None
    assert failed_with_fewer(of(8, persistent=True), trials) is not None


def test_memory_that_ran_out_while_stepping_may_last_with_more_workers() -> None:
    """Rows pile up in a worker; more of them share the rows."""
    trials = [trial(of(2), "out-of-memory", stage="step")]
    assert failed_with_fewer(of(4), trials) is None
    assert failed_with_fewer(of(2, persistent=True), trials) is not None
    early = [trial(of(2), "out-of-memory", stage="first batch")]
    assert failed_with_fewer(of(4), early) is not None


def test_the_words_say_with_how_many_it_failed() -> None:
    trials = [trial(of(1), "worker-died")]
    assert failure_words(of(1), trials) == "worker-died: Bus error"
    assert failure_words(of(2), trials) == (
        "not tried: with 1 worker it failed (worker-died: Bus error)"
    )
    assert failure_words(replace(of(1), workers=0), trials) == ""
