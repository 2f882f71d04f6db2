"""The batch that fits into a device's memory, on a simulated machine."""

from __future__ import annotations

import pytest

from ctrkit.core.errors import NoViableCellError
from ctrkit.probe.fitting_batch import next_batch
from ctrkit.probe.recommend import recommend
from ctrkit.probe.trials import TrialResult

FULL = "out of memory: the device has no memory left: CUDA out of memory. Tried to allocate 2 GiB"


@pytest.mark.parametrize(
    ("tried", "following"),
    [
        ({2048: False}, 1024),
        ({2048: False, 1024: False}, 512),
        ({2048: False, 1024: False, 512: True}, 768),
        ({2048: False, 1024: False, 512: True, 768: True}, None),
        ({2048: False, 1024: True, 1536: False}, None),
        ({1: False}, None),
        ({2: False, 1: True}, None),
        ({2**k: False for k in range(5, 11)}, None),
    ],
)
def test_halves_and_once_the_middle(tried: dict[int, bool], following: int | None) -> None:
    assert next_batch(tried) == following


def small_device(machine, most, step_s, **options):
    """A machine whose CUDA device has no room for more than `most` rows."""
    simulated = machine(step_s=step_s, **options)
    launch = simulated.launch

    def launch_or_fail(request, deadline_s):
        if request.cell.device == "cuda" and request.cell.batch_size > most:
            simulated.requests.append(request)
            simulated.now_s += 2.0
            return TrialResult(verdict="out-of-memory", reason=FULL)
        return launch(request, deadline_s)

    simulated.launch = launch_or_fail
    return simulated


def test_it_is_an_option_and_never_chosen(machine, inspection):
    simulated = small_device(machine, 700, {"cuda": 0.1, "cpu": 2.0})
    result = simulated.search(budget_s=300.0)
    tried = [r.cell.batch_size for r in simulated.requests if r.cell.device == "cuda"]
    assert tried[:4] == [2048, 1024, 512, 768]
    found = recommend(result, inspection(devices=["cuda", "cpu"]))
    assert (found.cell.device, found.cell.batch_size) == ("cpu", 2048)
    (option,) = [o for o in found.options if "fits into the memory of cuda" in o.text]
    assert "batch 512 fits" in option.text
    assert "768 does not" in option.text
    assert "--device cuda --batch-size 512" in option.text
    assert option.projected_total_s is None


def test_where_nothing_else_runs_the_error_says_it(machine, inspection):
    simulated = small_device(machine, 1024, {"cuda": 0.1})
    result = simulated.search(budget_s=300.0)
    with pytest.raises(NoViableCellError, match=r"^no .* run: batch 1,024 fits .*-size 1024"):
        recommend(result, inspection(devices=["cuda"]))


def test_memory_of_the_host_is_another_matter(machine):
    broken = machine(ends={"compute": "out-of-memory"})
    broken.search()
    assert {request.cell.batch_size for request in broken.requests} == {2048}
