"""Findings on GPUs from fake samples: no GPU is used."""

from __future__ import annotations

from typing import Any

import pytest
from made_up_nvml import OWN, reader

from ctrkit.supervise.gpu import GpuUse, added, combined
from ctrkit.supervise.gpu_findings import gpu_findings


def use_of(count: int = 5, **made: Any) -> GpuUse:
    return combined([added(GpuUse(), reader(**made).read({OWN}) * count)])


def test_a_gpu_that_waits_for_the_loader_is_said_so() -> None:
    idle, shared = gpu_findings(use_of(), 0.65)
    assert (
        idle.text
        == "the GPU is idle 71 % of a step: the loader (the loop waits for data 65 % of it)"
    )
    assert idle.share == pytest.approx(0.71)
    assert "python200 (pid 200, 200 MB)" in shared.text


def test_a_gpu_that_waits_for_the_host_is_not_blamed_on_the_loader() -> None:
    (idle, _) = gpu_findings(use_of(), 0.02)
    assert "the host asks for work too slowly" in idle.text
    assert "waits for data only 2 % of it" in idle.text
    (unknown, _) = gpu_findings(use_of(), None)
    assert unknown.confidence == "low"


def test_clocks_that_are_held_down_are_said_with_their_figures() -> None:
    held, _ = gpu_findings(use_of(busy=99, bits=0x4), 0.0)
    assert held.text == (
        "clocks are held down by power in 100 % of the looks at the GPU (312 W on average, the "
        "limit is 350 W); they run at 50 % of the highest clock on average"
    )


def test_few_looks_say_nothing() -> None:
    assert gpu_findings(use_of(count=2, bits=0x4), 0.9) == []
