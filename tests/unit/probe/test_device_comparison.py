"""The faster device is named with both times, only for cells that compute the same."""

from __future__ import annotations

from typing import Any

import pytest

from ctrkit.core.config import make_cell
from ctrkit.measure.statistics import interval
from ctrkit.probe.candidates import Candidate
from ctrkit.probe.device_comparison import device_finding
from ctrkit.probe.predict import Prediction


def ran(device: str, step_s: float, objective: float, **axes: Any) -> Candidate:
    return Candidate(
        cell=make_cell(device=device, **axes), objective=objective, relative_half=0.01,
        peak_rss_bytes=1, projection=None, step=interval(step_s, 0.01 * step_s),
    )  # fmt: skip


def predicted(device: str, step_s: float, **axes: Any) -> Prediction:
    return Prediction(
        cell=make_cell(device=device, **axes), step=interval(step_s, 0.1 * step_s),
        compute_step_s=step_s, loader_step_s=0.0, projection=None,
    )  # fmt: skip


def test_both_times_are_in_one_sentence() -> None:
    found = device_finding(
        make_cell(), [ran("cpu", 0.008, 100.0), ran("mps", 0.012, 160.0), ran("mps", 0.02, 300.0)],
        [],
    )  # fmt: skip
    assert found is not None
    assert found.text == (
        "a step takes 8 ms on cpu and 12 ms on mps: over the whole run cpu is 1.6x as fast as mps"
    )


def test_a_device_that_was_not_run_is_said_to_be_predicted() -> None:
    found = device_finding(
        make_cell(batch_size=1), [ran("cpu", 2.0, 2.0, batch_size=1)],
        [predicted("mps", 1.0, batch_size=1), predicted("cpu", 0.5, batch_size=1)],
    )  # fmt: skip
    assert found is not None
    assert "2 s on cpu" in found.text  # what was really run counts there, whatever is predicted
    found = device_finding(
        make_cell(batch_size=1), [ran("cpu", 2.0, 2.0, batch_size=1)],
        [predicted("mps", 1.0, batch_size=1)],
    )  # fmt: skip
    assert found is not None
    assert "1 s on mps (predicted) and 2 s on cpu" in found.text
    assert found.confidence == "low"


@pytest.mark.parametrize("axes", [{"precision": "bf16"}, {"batch_size": 7}])
def test_what_computes_something_else_is_not_compared(axes: dict[str, Any]) -> None:
    cells = [ran("cpu", 0.008, 100.0), ran("mps", 0.001, 10.0, **axes)]
    assert device_finding(make_cell(), cells, []) is None


def test_one_device_is_no_comparison_and_a_failed_one_is_named() -> None:
    cells = [ran("cpu", 0.008, 100.0)]
    assert device_finding(make_cell(), cells, []) is None
    found = device_finding(make_cell(), cells, [], failed=["mps"])
    assert found is not None
    assert found.text == "a step takes 8 ms on cpu; nothing could be measured on mps"


def test_a_difference_too_small_to_matter_is_called_the_same() -> None:
    found = device_finding(make_cell(), [ran("cpu", 1.0, 100.0), ran("mps", 1.0, 101.0)], [])
    assert found is not None
    assert "take the same time for the whole run" in found.text
