import dataclasses
from pathlib import Path

import pytest

from ctrkit.core.config import WorkloadSpec, encode
from ctrkit.core.records import Recommendation, TrialRecord
from ctrkit.ctr.plugin import load_phase
from ctrkit.report.markdown import markdown_text
from ctrkit.report.run_reader import read_contents
from ctrkit.report.status import status_update
from ctrkit.report.views import report_view
from tests.unit.report.conftest import BATCHES, SIZES, THREAD, MakeRun, epoch_row

PHASE3 = WorkloadSpec(settings=encode(load_phase("phase3")))


def pasted(path: Path) -> str:
    contents = read_contents(path)
    return markdown_text(status_update(report_view(contents), contents))


def test_options_of_a_run_that_is_not_finished(
    make_run: MakeRun, recommendation: Recommendation
) -> None:
    rows = [epoch_row(1, wall_s=3600.0), epoch_row(2, wall_s=3600.0)]
    best = dataclasses.replace(recommendation, projected_epoch_s=1800.0)
    run = make_run("train", epochs=rows, status="interrupted", cell=BATCHES, projection=best)
    text = pasted(run.path)
    assert (
        "| continue as is: 15 epochs | 13 h 00 min | 15 h 00 min |\n"
        "| reduce the epochs: stop after 8 | 6 h 00 min | 8 h 00 min |\n"
        "| reduce the epochs: stop after 5 | 3 h 00 min | 5 h 00 min |\n"
        "| change to the recommended configuration: cpu, thread loader, no workers, 2 threads, "
        "batch 2,048 | 6 h 30 min | 8 h 30 min |\n"
        "| stop and report 2 epochs | none | 2 h 00 min |\n"
    ) in text


def test_before_the_first_epoch_the_projected_pace_counts_and_is_said(
    make_run: MakeRun, recommendation: Recommendation
) -> None:
    run = make_run("train", status="running", projection=recommendation, cell=THREAD)
    assert "No whole epoch is finished: at the projected pace." in pasted(run.path)
    run = make_run("train", name="b", status="running", cell=THREAD,
                   device_names={"cpu": "cpu", "mps": "M3"})  # fmt: skip
    text = pasted(run.path)
    assert "no pace is known" in text
    assert "change the device (mps is there): \\`ctrkit probe\\` measures it | not known" in text


def test_a_finished_run_has_no_options(make_run: MakeRun) -> None:
    assert "### Options" not in pasted(make_run("train", epochs=[epoch_row(1)]).path)


def test_settings_that_ran_against_the_phase_file(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("train", workload=PHASE3, cell=THREAD)
    assert "All settings were those of phase3." in pasted(run.path)
    changed = WorkloadSpec(settings=encode(dataclasses.replace(load_phase("phase3"), dropout=0.5)))
    cell = dataclasses.replace(THREAD, batch_size=64)
    run = make_run("train", name="b", workload=changed, cell=cell,
                   sizes=dataclasses.replace(SIZES, epochs=2))  # fmt: skip
    text = pasted(run.path)
    assert "3 settings of this run differ from phase3:" in text
    for line in ("| epochs | 15 | 2 |", "| dropout | 0.3 | 0.5 |", "| batch_size | 2048 | 64 |"):
        assert line in text
    file = tmp_path / "mine.toml"
    file.write_text("dropout = 0.5\n")
    mine = load_phase(str(file))
    run = make_run("train", name="c", workload=WorkloadSpec(settings=encode(mine)), cell=THREAD,
                   argv=["train", "--phase", str(file)])  # fmt: skip
    assert "All settings were those of" in pasted(run.path)
    file.unlink()
    assert "ctrkit cannot compare the phase file" in pasted(run.path)


def test_rows_of_every_epoch(make_run: MakeRun) -> None:
    rows = [epoch_row(1), epoch_row(2, rows=100)]
    text = pasted(make_run("train", epochs=rows, data_fingerprint="d1").path)
    assert "- data fingerprint: d1\n" in text
    assert "epochs with fewer than 1,052,081 training rows: 2" in text
    whole = pasted(make_run("train", name="b", epochs=rows[:1]).path)
    assert "every finished epoch had all 1,052,081 training rows" in whole


def test_the_known_runs_beside_the_first_epoch(make_run: MakeRun) -> None:
    run = make_run("train", workload=PHASE3, epochs=[epoch_row(1, val_auc=0.58, val_loss=0.31)])
    text = pasted(run.path)
    assert "| val AUC | 0.5800 | 0.5829 | -0.0029 | 0.5698 | +0.0102 |" in text
    assert "| val loss | 0.3100 | 0.1880 | not comparable | 0.3075 | +0.0025 |" in text


@pytest.mark.parametrize(("status", "words"), [("done", "is done"), ("running", "has died")])
def test_the_summary_of_a_run(make_run: MakeRun, status: str, words: str) -> None:
    revised = WorkloadSpec(settings=encode(load_phase("phase3-revised")))
    run = make_run("train", epochs=[epoch_row(1, val_auc=0.58)], status=status, workload=revised,
                   sizes=dataclasses.replace(SIZES, epochs=5))  # fmt: skip
    summary = pasted(run.path).split("### Summary\n\n")[1].splitlines()[0]
    assert f"The run {words}: 1 of 5 epochs finished." in summary
    assert "Best validation AUC: 0.5800 in epoch 1." in summary
    assert "It is incomplete for a class: 1 of 5 epochs" in summary


def test_the_summary_of_a_probe(
    make_run: MakeRun, trials: list[TrialRecord], recommendation: Recommendation
) -> None:
    run = make_run("probe", trials=trials, recommendation=recommendation)
    text = pasted(run.path)
    assert "Recommended: cpu, thread loader, no workers, 2 threads, batch 2,048." in text
    assert "projected to take 1 d 1 h (24.2 .. 26.7 h)." in text
    assert "of 6 cells, 1 failed" in text
    assert "No configuration is recommended" in pasted(make_run("probe", name="b").path)
