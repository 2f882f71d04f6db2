"""How a probe ends: its message without an answer, and what it adds to an answer."""

from dataclasses import replace

import pytest

from ctrkit.commands.known_spread import with_launch_spread
from ctrkit.commands.probe_end import conclude_probe, sign
from ctrkit.commands.probe_options import ProbeOptions
from ctrkit.core.calibration import CalibrationRow, calibration_path, note_calibration
from ctrkit.core.child_records import Inspection
from ctrkit.core.config import WorkloadSpec, make_cell
from ctrkit.core.environment import machine_fingerprint
from ctrkit.core.errors import InconclusiveError
from ctrkit.core.launch_spread import SHIPPED
from ctrkit.core.records import Finding, Recommendation
from ctrkit.core.runs import RunFolder
from ctrkit.probe.matrix import MatrixPlan, build_matrix
from ctrkit.probe.search import SearchResult

INSPECTION = Inspection(
    devices=["cpu"], device_names={}, torch_version="2", workload_name="w",
    workload_fingerprint="w", data_fingerprint="d", axes=["workers"], loaders=["custom"],
    default_batch_size=8, has_task=False, sizes=None,
)  # fmt: skip
BUSY = Finding(
    stage="other processes", share=None, worth_x=None, text="others took 1.8 of 2 cores",
    confidence="medium",
)  # fmt: skip


def plan() -> MatrixPlan:
    return build_matrix(INSPECTION, {"workers": (0,)})


@pytest.fixture
def run(tmp_path):
    return RunFolder.create("probe", ["probe"], WorkloadSpec(), tmp_path / "run")


def test_no_answer_on_a_busy_machine_says_so(run):
    result = SearchResult(plan=plan(), records=(), trials=(), predictions=())
    with pytest.raises(InconclusiveError, match=r"longer --budget; others took 1\.8 of 2 cores"):
        conclude_probe(run, INSPECTION, result, ProbeOptions(budget_s=9.0), 0.0, [BUSY])
    assert run.info.status == "done"
    assert run.info.status_reason.endswith(BUSY.text)
    assert run.recommendation() is None


def test_an_answer_is_signed_and_says_what_it_does_not_know(run):
    endless = Recommendation(cell=make_cell(), reason="r")
    signed = sign(endless, run, 90.0, None)
    assert signed.projected_at is not None
    assert replace(signed, origin=None, projected_at=None) == replace(endless, probe="run")
    assert signed.origin is not None
    assert signed.origin.machine_fingerprint == run.info.machine_fingerprint
    known = Recommendation(cell=make_cell(), reason="r", projected_epoch_s=3600.0, launches=2,
                           findings=[BUSY])  # fmt: skip
    found = sign(known, run, 90.0, SHIPPED).findings
    assert [finding.stage for finding in found] == ["other processes", "projection"]
    assert "2 launches in a probe of 1 min 30 s" in found[1].text
    assert "is assumed, from this project's own runs" in found[1].text
    learned = replace(SHIPPED, pairs=14, own_pairs=6)
    text = sign(known, run, 90.0, learned).findings[1].text
    assert "learned from 14 runs of this machine, 6 of them of this workload" in text
    assert text.startswith("The projection rests on 2 launches in a probe of 1 min 30 s, while an")
    unlike = sign(known, run, 90.0, replace(learned, own_pairs=0)).findings[1].text
    assert "none of them of this workload" in unlike


def test_a_probe_knows_what_earlier_runs_of_the_machine_have_told(tmp_path, monkeypatch):
    monkeypatch.setenv("CTRKIT_HOME", str(tmp_path))
    assert with_launch_spread(INSPECTION).launch_spread == SHIPPED
    for number in range(6):
        note_calibration(calibration_row(f"run{number}", actual_s=13.0))
    found = with_launch_spread(INSPECTION).launch_spread
    assert (found.pairs, found.own_pairs) == (6, 6)
    assert found.relative > 2 * SHIPPED.relative
    calibration_path().write_bytes(b"damaged")
    assert with_launch_spread(INSPECTION).launch_spread == SHIPPED


def calibration_row(run, *, actual_s):
    return CalibrationRow(
        when="2030-01-02T03:04:05+00:00", run=run, machine_fingerprint=machine_fingerprint(),
        workload_fingerprint=INSPECTION.workload_fingerprint, data_fingerprint=None, phase="p",
        cell_id="c", cell={}, probe=None, launches=3, projected_epoch_s=10.0,
        projected_epoch_s_low=9.0, projected_epoch_s_high=11.0, projected_total_s=None,
        projected_total_s_low=None, projected_total_s_high=None, actual_epoch_s=actual_s,
        actual_total_s=None, epochs=1, incidents=0, outcome="finished",
    )  # fmt: skip
