import pytest

from ctrkit.config import make_cell
from ctrkit.probe.hazards import hazards_of, refusal


def forked(**axes):
    return make_cell(**({"loader": "batches", "workers": 2, "start_method": "fork"} | axes))


@pytest.mark.parametrize("device", ["mps", "cuda"])
def test_a_fork_beside_an_accelerator_in_use_is_refused_with_its_sources(device):
    hazard = refusal(forked(device=device))
    assert hazard is not None
    assert all(reference.startswith("https://") for reference in hazard.references)
    assert hazard.references[0] in hazard.reason
    assert hazard.advice in hazard.reason


@pytest.mark.parametrize(
    "cell",
    [
        forked(device="mps", workers=0, start_method=None),
        forked(device="mps", start_method="spawn"),
        forked(device="cuda", start_method="forkserver"),
        forked(device="cpu"),
        make_cell(device="mps", loader="thread"),
    ],
)
def test_nothing_else_is_refused(cell):
    assert refusal(cell) is None
    assert refusal(cell, system="Darwin") is None


def test_a_users_loader_is_warned_of_and_not_refused():
    cell = forked(device="mps")
    assert refusal(cell, has_task=False) is None
    assert "fork with MPS" in [h.name for h in hazards_of(cell, has_task=False)]


def test_refusals_come_before_warnings():
    found = hazards_of(forked(device="mps"), system="Darwin")
    assert [h.name for h in found] == ["fork with MPS", "fork on macOS"]
    assert [h.refuses for h in found] == [True, False]


def test_fork_is_a_warning_on_any_system_and_spawn_only_for_what_cannot_be_pickled():
    assert [h.name for h in hazards_of(forked())] == ["fork with threads"]
    assert hazards_of(forked(start_method="spawn")) == []
    (hazard,) = hazards_of(forked(start_method="spawn"), picklable=False)
    assert "pickled" in hazard.text
