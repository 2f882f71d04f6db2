"""Which runs projections are learned from: late ones too, since to leave them out hides errors."""

import json

import pytest

from ctrkit.commands.train_session import _disturbances
from ctrkit.core.config import WorkloadSpec
from ctrkit.core.files import write_table
from ctrkit.core.runs import INCIDENTS, RunFolder
from ctrkit.supervise.ledger import LEDGER, ledger_table
from tests.unit.supervise.test_memory_end import ROW


@pytest.mark.parametrize(
    ("incidents", "asleep_s", "expected"),
    [
        ([], 0.0, 0),
        ([{"verdict": "late", "action": "noted"}], 0.0, 0),
        ([{"verdict": "memory grows", "action": "noted"}], 0.5, 0),
        ([{"verdict": "deadlock", "action": "restarted"}], 0.0, 1),
        ([{"verdict": "late", "action": "noted"}], 30.0, 1),
        ([{"verdict": "late", "action": "stopped"}], 0.0, 1),
    ],
)
def test_only_what_was_done_to_a_run_disturbs_it(tmp_path, incidents, asleep_s, expected):
    run = RunFolder.create("train", ["train"], WorkloadSpec(), tmp_path / "run")
    lines = "".join(json.dumps(one) + "\n" for one in incidents)
    (run.path / INCIDENTS).write_text(lines)
    row = ROW.__class__(**{**ROW.__dict__, "seconds": {"compute": 60.0, "asleep": asleep_s}})
    write_table(run.path / LEDGER, ledger_table([row]))
    assert _disturbances(run) == expected
