"""When threads, workers and cores do not fit together."""

import pytest

from ctrkit.core.config import make_cell
from ctrkit.measure.cores import core_findings, used_cores, waiting_finding


def found(measured, *, cores, used, wait_s=0.0, **axes):
    run = measured([1.0] * 20, wait_s=wait_s, cpu_s=20.0 * used)
    return core_findings(make_cell(**axes), [run, run], cores)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ({"cores": 2, "used": 2.0, "threads": 4}, "--threads 2 is enough"),
        ({"cores": 4, "used": 3.9, "threads": 4, "workers": 2, "loader": "rows"}, "are full"),
        ({"cores": 4, "used": 1.1, "threads": 1}, "2.9 of 4 cores are idle"),
    ],
)
def test_what_does_not_fit_is_told(measured, case, words):
    (finding,) = found(measured, **case)
    assert words in finding.text
    assert finding.stage == "threads"


@pytest.mark.parametrize(
    "case",
    [
        {"cores": 2, "used": 1.9, "threads": 2},
        {"cores": 4, "used": 2.0, "threads": 4, "workers": 2, "loader": "rows"},
        {"cores": 4, "used": 1.1, "threads": 1, "wait_s": 0.5},
        {"cores": 4, "used": 1.1, "threads": 4},
        {"cores": 2, "used": 2.0, "threads": 4, "device": "cuda"},
    ],
)
def test_what_fits_is_not_worth_a_word(measured, case):
    assert found(measured, **case) == []


def test_used_cores_are_processor_time_per_time(measured):
    assert used_cores([measured([2.0] * 10, cpu_s=30.0)]) == pytest.approx(1.5)
    assert used_cores([measured([2.0] * 10)]) is None


def waits(measured, *, cores=2, used, wait_s, **axes):
    run = measured([1.0] * 20, wait_s=wait_s, cpu_s=20.0 * used)
    return waiting_finding(make_cell(**axes), [run, run], cores)


def test_a_loader_that_waits_itself_may_gain_by_workers_beyond_the_cores(measured):
    finding = waits(measured, used=0.2, wait_s=0.9, loader="rows", workers=2)
    assert finding.stage == "workers"
    assert "0.2 of 2 cores are busy" in finding.text
    assert "--workers 2,4,8 would tell" in finding.text
    alone = waits(measured, used=0.2, wait_s=0.9, loader="custom")
    assert "--workers 0,4,8 would tell" in alone.text


@pytest.mark.parametrize(
    "case",
    [
        {"used": 1.9, "wait_s": 0.9, "loader": "rows", "workers": 2},
        {"used": 1.0, "wait_s": 0.9, "loader": "rows"},
        {"used": 0.2, "wait_s": 0.1, "loader": "rows", "workers": 2},
        {"used": 0.2, "wait_s": 0.9, "loader": "thread"},
    ],
)
def test_more_workers_are_not_proposed_where_they_cannot_help(measured, case):
    assert waits(measured, **case) is None
