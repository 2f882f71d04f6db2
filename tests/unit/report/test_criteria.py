import dataclasses
from typing import Any

import pytest

from ctrkit.core.config import RunSizes, WorkloadSpec, encode
from ctrkit.ctr.phase import WATCH
from ctrkit.ctr.plugin import load_phase
from ctrkit.report.criteria import Classification, classify, criteria_section, figure
from tests.unit.report.conftest import SIZES, epoch_row, info

CRITERIA = {
    "tier1": {"best_val_auc": ">= 0.578", "best_epoch": "3-6", "train_val_gap": "0.05-0.12"},
    "tier2": {"best_val_auc": ">= 0.570"},
}


def classified(
    aucs: list[float], *, status: str = "done", sizes: RunSizes | None = None,
    partial: bool = False, criteria: dict[str, dict[str, str]] = CRITERIA, **values: float,
) -> Classification | None:  # fmt: skip
    rows = [epoch_row(n + 1, val_auc=auc, **values) for n, auc in enumerate(aucs)]
    phase = dataclasses.replace(load_phase("phase3-revised"), criteria=criteria)
    sizes = sizes or dataclasses.replace(SIZES, epochs=5)
    run: Any = info(
        "train", workload=WorkloadSpec(settings=encode(phase)), status=status, sizes=sizes
    )
    return classify(run, rows, partial)


@pytest.mark.parametrize(
    ("aucs", "tier"),
    [
        ([0.55, 0.56, 0.58, 0.57, 0.57], "tier1"),
        ([0.55, 0.56, 0.578, 0.57, 0.57], "tier1"),
        ([0.59, 0.56, 0.57, 0.57, 0.57], "tier2"),
        ([0.55, 0.56, 0.5779, 0.57, 0.57], "tier2"),
        ([0.55, 0.56, 0.56, 0.56, 0.56], None),
    ],
)
def test_the_first_class_all_of_whose_conditions_hold(aucs: list[float], tier: str | None) -> None:
    found = classified(aucs)
    assert found is not None
    assert (found.tier, found.incomplete) == (tier, "")


def test_the_gap_is_that_of_the_best_epoch() -> None:
    found = classified([0.5, 0.5, 0.6, 0.5, 0.5], train_val_gap=0.2)
    assert found is not None
    assert found.tier == "tier2"
    assert [one.is_met for one in found.judged] == [True, True, False, True]


@pytest.mark.parametrize(
    ("count", "changes", "why"),
    [
        (1, {"status": "running"}, "1 of 5 epochs finished, the run is running"),
        (5, {"status": "interrupted"}, "5 of 5 epochs finished, the run is interrupted"),
        (5, {"partial": True}, "5 of 5 epochs, the last of them cut short"),
        (2, {"sizes": dataclasses.replace(SIZES, epochs=2)}, "2 of 5 epochs were asked for"),
        (2, {}, "2 of 5 epochs, then it was cut short"),
    ],
)
def test_an_incomplete_run_is_said_to_be_incomplete(
    count: int, changes: dict[str, Any], why: str
) -> None:
    found = classified([0.57 + n / 1000 for n in range(count)], **changes)
    assert found is not None
    assert found.incomplete == why
    assert "Incomplete: " in str(criteria_section(found))


def test_a_run_that_its_patience_ended_is_complete() -> None:
    sizes = dataclasses.replace(SIZES, epochs=5, patience=2)
    found = classified([0.55, 0.58, 0.57, 0.57], sizes=sizes)
    assert found is not None
    assert found.incomplete == ""


def test_a_phase_without_criteria_classifies_nothing() -> None:
    assert classified([0.6], criteria={}) is None


def test_figures_that_are_not_known_meet_nothing() -> None:
    found = classified([0.6] * 5, criteria={"t": {"best_of_all": ">= 0", "last_val_auc": "> 0.5"}})
    assert found is not None
    assert found.tier is None
    assert [one.is_met for one in found.judged] == [None, True]
    assert "no such figure" in str(criteria_section(found))
    assert classified([], criteria=CRITERIA) is not None


def test_figures_by_name() -> None:
    rows = [epoch_row(1, val_auc=0.6, gate_mean=0.1), epoch_row(2, val_auc=0.5, gate_mean=0.2)]
    assert figure("best_epoch", rows, WATCH) == 1
    assert figure("gate_mean", rows, WATCH) == 0.1
    assert figure("last_gate_mean", rows, WATCH) == 0.2
    assert figure("best_val_auc", [], WATCH) is None
    assert figure("last_epoch", [], WATCH) is None
