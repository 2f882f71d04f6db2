"""When a probe may stop because every cell would fail in the same way."""

from __future__ import annotations

import pytest

from ctrkit.core.child_records import Inspection
from ctrkit.core.config import Cell, make_cell
from ctrkit.core.errors import NoViableCellError, UsageError
from ctrkit.probe.matrix import build_matrix
from ctrkit.probe.recommend import recommend
from ctrkit.probe.same_failure import NOT_TRIED, cell_to_ask, same_failure
from ctrkit.probe.search import run_search
from ctrkit.probe.trials import Trial, TrialRequest, TrialResult

MISSING = "raised: FileNotFoundError: no such file: 'a.csv' (at loader.py:3 in make_loader)"
INSPECTION = Inspection(
    devices=["cpu"], device_names={}, data_fingerprint=None, sizes=None, torch_version="2",
    workload_name="x", workload_fingerprint="f",
    axes=["workers", "start_method", "batch_size"], loaders=["custom"], default_batch_size=32,
    has_task=False,
)  # fmt: skip


def cell(workers: int = 0, start: str | None = None, batch: int = 32) -> Cell:
    return make_cell(loader="custom", workers=workers, start_method=start, batch_size=batch)


def failed(of: Cell, reason: str, *, verdict: str = "setup-failed", **more: object) -> Trial:
    result = TrialResult(verdict=verdict, reason=reason, **{"stage": "data", **more})  # type: ignore[arg-type]
    return Trial(request=TrialRequest(kind="full", cell=of), result=result, launch=1)


CELLS = (cell(), cell(1, "fork"), cell(1, "spawn"), cell(2, "spawn"), cell(2, "spawn", 64))


def test_the_cell_that_has_least_in_common_is_asked() -> None:
    first = failed(CELLS[0], f"the main process {MISSING} (in stage 'data')")
    assert cell_to_ask(first, [first], CELLS) == CELLS[4]
    assert cell_to_ask(first, [first], CELLS[:1]) is None
    assert cell_to_ask(first, [first, first], CELLS) is None


@pytest.mark.parametrize(
    ("verdict", "stage", "reason"),
    [
        ("deadlock", "data", "no progress"),
        ("out-of-memory", "data", "raised: MemoryError"),
        ("crashed", "step", "the main process raised: ValueError"),
        ("worker-died", "first batch", "worker 0 was killed by SIGKILL"),
        ("crashed", "first batch", "worker 0 (pid 4) was killed by SIGSEGV"),
    ],
)
def test_what_may_depend_on_the_cell_is_tried_everywhere(
    verdict: str, stage: str, reason: str
) -> None:
    first = failed(CELLS[0], reason, verdict=verdict, stage=stage)
    assert cell_to_ask(first, [first], CELLS) is None
    assert same_failure([first, first], CELLS) is None


def test_main_process_and_worker_may_fail_of_the_same() -> None:
    one = failed(CELLS[0], f"the main process {MISSING} (in stage 'first batch')",
                 stage="first batch", verdict="crashed")  # fmt: skip
    other = failed(CELLS[4], f"worker 1 {MISSING} (in stage 'first batch')",
                   stage="first batch", verdict="crashed")  # fmt: skip
    found = same_failure([one, other], CELLS)
    assert found is not None
    assert found.left == 3
    assert "the other 3 configurations were not tried" in found.words
    assert "no such file: 'a.csv'" in found.words
    different = failed(CELLS[4], "worker 1 raised: ImportError: no module named x")
    assert same_failure([one, different], CELLS) is None


@pytest.mark.parametrize(("misused", "error"), [(True, UsageError), (False, NoViableCellError)])
def test_a_search_ends_after_two_that_fail_alike(misused: bool, error: type[Exception]) -> None:
    plan = build_matrix(
        INSPECTION, {"workers": (0, 1, 2), "start_method": ("fork", "spawn")}, system="Linux"
    )
    launched: list[Cell] = []

    def launch(request: TrialRequest, deadline_s: float) -> TrialResult:
        launched.append(request.cell)
        who = "worker 0" if request.cell.workers else "the main process"
        reason = "x returned None" if misused else f"{who} {MISSING}"
        return TrialResult(verdict="setup-failed", reason=reason, stage="data", misused=misused)

    def search(thorough: bool) -> tuple[list[str], str]:
        launched.clear()
        result = run_search(
            plan, INSPECTION, launch=launch, clock=lambda: 0.0, budget_s=100, thorough=thorough
        )
        with pytest.raises(error if not thorough else (UsageError, NoViableCellError)) as raised:
            recommend(result, INSPECTION)
        return [record.reason for record in result.records], str(raised.value)

    reasons, words = search(thorough=False)
    assert [(one.workers, one.start_method) for one in launched] == [(0, None), (1, "spawn")]
    assert len(reasons) == len(plan.cells)
    assert reasons.count(NOT_TRIED) == len(plan.cells) - 2
    assert "not tried" in words
    search(thorough=True)
    assert len(launched) == len(plan.cells)  # thorough is every cell


def test_another_failure_there_goes_on() -> None:
    plan = build_matrix(INSPECTION, {"workers": (0, 1)}, system="Linux")

    def launch(request: TrialRequest, deadline_s: float) -> TrialResult:
        reason = f"the main process raised: ValueError: {request.cell.workers} workers"
        return TrialResult(verdict="setup-failed", reason=reason, stage="data")

    result = run_search(plan, INSPECTION, launch=launch, clock=lambda: 0.0, budget_s=100)
    assert result.same_failure is None
    assert len(result.trials) == len(plan.cells)
