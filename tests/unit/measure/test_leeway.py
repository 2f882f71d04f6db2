import pytest

from ctrkit.core.child_records import Measurement
from ctrkit.core.config import make_cell
from ctrkit.measure.cores import waiting_finding
from ctrkit.measure.diagnosis import Ceilings, diagnose
from ctrkit.measure.leeway import Leeway

ALONE = make_cell(loader="custom", threads=1)
TWO = make_cell(loader="custom", workers=2, threads=1)


def slow(measured, **fields) -> Measurement:
    return measured([1.0] * 20, wait_s=0.95, cpu_s=2.0, **fields)


@pytest.mark.parametrize(
    ("leeway", "words"),
    [
        (Leeway(), "workers read ahead"),
        (Leeway(axes=["batch_size"]), "it takes no number of workers"),
        (Leeway(failed={2: "deadlock"}), "2 workers failed (deadlock)"),
        (Leeway(failed={1: "crashed"}), "1 worker failed (crashed)"),
        (Leeway(tried=[2, 4]), "more workers (2, 4) were tried and were not measurably faster"),
        (Leeway(predicted=[2, 4]), "(2, 4) were not run, but are predicted to be no faster"),
        (
            Leeway(promising=[2, 4]),
            "2, 4 workers are predicted to be faster, but were not fully measured",
        ),
        (Leeway(tried=[4], promising=[2]), "(4) were tried and were not measurably faster; 2 work"),
        (Leeway(failed={8: "crashed"}, promising=[2]), "longer --budget; 8 workers failed (crashe"),
        (Leeway(repeats=True), "as long as they change the epoch"),
    ],
)
def test_workers_are_proposed_only_where_nothing_speaks_against_them(measured, leeway, words):
    (finding,) = diagnose(ALONE, [slow(measured)], Ceilings(), has_task=False, leeway=leeway)
    assert words in finding.text
    proposed = waiting_finding(ALONE, [slow(measured)], 2, leeway) is not None
    assert proposed == (leeway == Leeway())


def test_a_loader_that_is_kept_off_the_cores_is_not_said_to_wait_for_a_disk(measured):
    assert waiting_finding(ALONE, [slow(measured)], 2, Leeway(other_cores=1.5)) is None
    quiet = waiting_finding(ALONE, [slow(measured)], 2, Leeway(other_cores=0.0))
    unknown = waiting_finding(ALONE, [slow(measured)], 2, Leeway(other_cores=None))
    assert (quiet.confidence, unknown.confidence) == ("medium", "low")
    assert "unknown, since a trial failed" in unknown.text
    assert "unknown" not in quiet.text


def test_fewer_workers_that_were_tried_say_nothing_of_more(measured):
    few = Leeway(tried=[0, 1], failed={0: "crashed"})
    assert "or use more workers" in diagnose(TWO, [slow(measured)], Ceilings(), leeway=few)[0].text


@pytest.mark.parametrize(
    ("stage", "option"),
    [("ipc", "--loader thread"), ("collate", "--loader batches"), ("fetch", "on the device")],
)
def test_no_loader_is_named_that_the_workload_does_not_have(measured, stage, option):
    cell = TWO if stage == "ipc" else ALONE
    making = {"fetch": [0.01]} if stage == "ipc" else {}
    run = slow(measured, stages={**making, stage: [0.95], "forward": [0.05]})
    own = Leeway(loaders=["custom"])
    assert option in diagnose(cell, [run], Ceilings())[0].text
    assert option not in diagnose(cell, [run], Ceilings(), leeway=own)[0].text


def test_no_axis_is_named_that_the_workload_does_not_heed(measured):
    cell = make_cell(device="cuda", loader="batches", threads=1)
    run = measured([1.0] * 20, stages={"transfer": [0.9], "forward": [0.1]})
    assert "--pin" in diagnose(cell, [run], Ceilings())[0].text
    unheeded = diagnose(cell, [run], Ceilings(), leeway=Leeway(axes=["workers"]))[0].text
    assert "--pin" not in unheeded
    on_mps = make_cell(device="mps", loader="batches", threads=1)
    assert "--pin" not in diagnose(on_mps, [run], Ceilings())[0].text
