import pytest

from ctrkit.config import make_cell
from ctrkit.measure.diagnosis import Ceilings, diagnose, step_shares
from ctrkit.records import Measurement

CELL = make_cell(loader="rows", threads=2)
COMPUTE = {"forward": [0.25] * 20, "backward": [0.7] * 20, "optimizer": [0.05] * 20}


def launch(measured, step_s, wait_s, **fields):
    return measured([step_s] * 20, wait_s=wait_s, **fields)


def test_shares_add_up_to_one(measured):
    shares = step_shares([launch(measured, 2.0, 1.0, stages=COMPUTE)])
    assert sum(shares.values()) == pytest.approx(1.0)
    assert shares["fetch"] == pytest.approx(0.5)
    assert shares["backward"] == pytest.approx(0.35)


@pytest.mark.parametrize("slow", ["fetch", "collate", "ipc"])
def test_the_wait_goes_by_the_stage_that_makes_it(measured, slow):
    stages = COMPUTE | {"fetch": [0.1], "collate": [0.1], "ipc": [0.1]} | {slow: [3.0]}
    finding = diagnose(CELL, [launch(measured, 4.0, 3.0, stages=stages)], Ceilings())[0]
    assert finding.stage == slow


def test_a_loader_that_limits_is_named_with_what_its_removal_is_worth(measured):
    runs = [launch(measured, 4.0, 3.0, stages=COMPUTE)] * 2
    (finding,) = diagnose(CELL, runs, Ceilings(compute_step_s=1.0, loader_step_s=3.0))
    assert finding.stage == "fetch"
    assert finding.share == pytest.approx(0.75)
    assert finding.worth_x == pytest.approx(4.0)
    assert finding.confidence == "high"
    assert "--loader" in finding.text


@pytest.mark.parametrize("stage", ["transfer", "forward", "backward", "optimizer"])
def test_a_stage_of_the_step_that_limits_is_named(measured, stage):
    stages = {s: [0.1] for s in ("transfer", "forward", "backward", "optimizer")} | {stage: [1.0]}
    run = launch(measured, 1.3, 0.01, stages=stages)
    finding = diagnose(CELL, [run], Ceilings(compute_step_s=1.29, loader_step_s=0.013))[0]
    assert finding.stage == stage
    assert "cannot help" in finding.text
    assert "100x" in finding.text


def test_halves_are_balanced(measured):
    stages = {"forward": [0.1], "backward": [1.0], "optimizer": [0.05]}
    finding = diagnose(CELL, [launch(measured, 2.3, 1.15, stages=stages)], Ceilings())[0]
    assert finding.stage == "balanced"
    assert "fetch" in finding.text
    assert "backward" in finding.text
    assert finding.worth_x is None


def test_the_step_slowed_by_its_own_loader_is_a_finding(measured):
    run = launch(measured, 1.5, 0.0, stages=COMPUTE)
    found = diagnose(CELL, [run, run], Ceilings(compute_step_s=1.0, loader_step_s=0.5))
    assert [f.stage for f in found] == ["backward", "contention"]
    assert found[1].worth_x == pytest.approx(1.5)
    assert found[0].confidence == "low", "the ceiling does not confirm the shares"


def test_one_launch_or_few_steps_lower_the_confidence(measured):
    ceilings = Ceilings(compute_step_s=1.0)
    many = launch(measured, 1.0, 0.0, stages=COMPUTE)
    few = measured([1.0] * 3, stages=COMPUTE)
    assert diagnose(CELL, [many], ceilings)[0].confidence == "medium"
    assert diagnose(CELL, [many, many], ceilings)[0].confidence == "high"
    assert diagnose(CELL, [few, few], ceilings)[0].confidence == "low"
    assert diagnose(CELL, [many, many], Ceilings())[0].confidence == "medium"


def test_stages_of_the_step_alone_serve_where_the_launch_has_none(measured):
    alone = measured([1.0], kind="compute", stages=COMPUTE)
    finding = diagnose(CELL, [launch(measured, 1.0, 0.0)], Ceilings(), also=[alone])[0]
    assert finding.stage == "backward"


def test_advice_speaks_of_the_configuration_at_hand(measured):
    def advice(**axes):
        run = launch(measured, 4.0, 3.9, stages=COMPUTE)
        return diagnose(make_cell(**axes), [run], Ceilings())[0].text

    assert "3 workers" in advice(loader="batches", workers=3)
    assert "--workers" in advice(loader="batches")
    assert "device" in advice(loader="resident")


def test_a_loader_on_its_own_is_said_to_be_all_there_was(measured):
    run = launch(measured, 0.1, 0.1)
    (finding,) = diagnose(CELL, [run], Ceilings(), has_task=False)
    assert finding.stage == "fetch"
    assert "no training step" in finding.text


def test_nothing_measured_nothing_found():
    assert diagnose(CELL, [Measurement(kind="full")], Ceilings()) == []
