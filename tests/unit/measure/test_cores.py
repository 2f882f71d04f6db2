"""When threads, workers and cores do not fit together."""

import pytest

from ctrkit.config import make_cell
from ctrkit.measure.cores import core_findings, used_cores


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
