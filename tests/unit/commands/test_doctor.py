"""How doctor assembles a checkup; examining is tested with real processes."""

from __future__ import annotations

import json

from ctrkit.commands.doctor import document, stage_allowances
from ctrkit.core.checkup import Checkup, Hazard, HazardFinding, MachineLimits
from ctrkit.core.child_records import Examination, Inspection
from ctrkit.core.config import make_cell
from ctrkit.core.progress import Stage
from ctrkit.supervise.time_limits import TimeLimits

INSPECTION = Inspection(
    devices=["cpu"], device_names={}, torch_version="", workload_name="own",
    workload_fingerprint="", data_fingerprint="", axes=[], loaders=["custom"],
    default_batch_size=8, has_task=False, sizes=None,
)  # fmt: skip


def test_every_stage_has_an_allowance_with_a_reason():
    few, many = make_cell(loader="rows", workers=1), make_cell(loader="rows", workers=4)
    allowances = stage_allowances([make_cell(), many, few], TimeLimits())
    by_stage = {allowance.stage: allowance for allowance in allowances}
    assert [stage.label for stage in Stage if stage.label not in by_stage] == []
    assert all(allowance.reason for allowance in allowances)
    assert "4 workers" in by_stage["shutdown"].reason
    assert by_stage["later steps"].idle_s < by_stage["step"].idle_s
    assert "median" in by_stage["later steps"].reason


def test_a_stall_timeout_sets_all_of_them():
    allowances = stage_allowances([make_cell()], TimeLimits(stall_timeout_s=7.0))
    assert {allowance.idle_s for allowance in allowances} == {7.0}
    assert len(allowances) == len(Stage)
    assert len(stage_allowances([], TimeLimits())) > len(Stage)  # no cell at all


def test_the_document_is_plain_json_with_the_promised_keys():
    cell = make_cell(loader="rows", workers=2)
    hazards = [
        Hazard(name=name, level=level, text="t", advice="a", references=("https://x",))
        for name, level in (("r", "refusal"), ("w", "warning"), ("n", "note"))
    ]
    found = document(
        Checkup(
            inspection=INSPECTION,
            examination=Examination(problem="p"),
            limits=MachineLimits(memory_bytes=5),
            cells=(cell, make_cell()),
            invalid=((cell, "no such thing"),),
            findings=tuple(HazardFinding(hazard=h, cells=(cell,)) for h in hazards),
            versions={"torch": "2"},
            allowances=stage_allowances([cell], TimeLimits()),
        )
    )
    found = json.loads(json.dumps(found, allow_nan=False))
    assert found["cells"] == 2
    assert [entry["name"] for entry in found["refused"]] == ["r", "no such cell"]
    assert found["refused"][0]["cells"] == [cell.cell_id]
    assert found["refused"][0]["references"] == ["https://x"]
    assert [entry["name"] for entry in found["warnings"]] == ["w"]
    assert [entry["name"] for entry in found["notes"]] == ["n"]
    assert found["machine"]["memory_bytes"] == 5
    assert found["machine"]["versions"] == {"torch": "2"}
    assert found["workload"]["problem"] == "p"
    assert set(found["budgets"][0]) == {"stage", "idle_s", "burning_s", "reason"}
