"""How a probe ends: what it says where it has no answer, and what it adds to one."""

from dataclasses import replace

import pytest

from ctrkit.commands.probe import ProbeOptions, _conclude, _signed
from ctrkit.core.config import WorkloadSpec, make_cell
from ctrkit.core.errors import InconclusiveError
from ctrkit.core.records import Finding, Inspection, Recommendation
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
        _conclude(run, INSPECTION, result, ProbeOptions(budget_s=9.0), 0.0, [BUSY])
    assert run.info.status == "done"
    assert run.info.status_reason.endswith(BUSY.text)
    assert run.recommendation() is None


def test_an_answer_is_signed_and_says_what_it_does_not_know(run):
    endless = Recommendation(cell=make_cell(), reason="r")
    signed = _signed(endless, run, 90.0)
    assert replace(signed, origin=None) == replace(endless, probe="run")
    assert signed.origin is not None
    assert signed.origin.machine_fingerprint == run.info.machine_fingerprint
    known = Recommendation(cell=make_cell(), reason="r", projected_epoch_s=3600.0, launches=2,
                           findings=[BUSY])  # fmt: skip
    found = _signed(known, run, 90.0).findings
    assert [finding.stage for finding in found] == ["other processes", "projection"]
    assert "2 launches in a probe of 1 min 30 s" in found[1].text
