"""What `run.json` records about how a run ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctrkit.commands.run_end import conclude_run
from ctrkit.core.config import RunSizes, WorkloadSpec
from ctrkit.core.files import write_json
from ctrkit.core.runs import RunFolder
from ctrkit.supervise.stop import StopRequest
from ctrkit.supervise.supervisor import Outcome


@pytest.mark.parametrize(
    ("by_max_steps", "reason"),
    [(True, "--max-steps ended it after 300 steps: 1 epoch of 5 finished"), (False, "")],
)
def test_a_run_that_max_steps_ended_says_so(
    tmp_path: Path, by_max_steps: bool, reason: str
) -> None:
    run = RunFolder.create("train", [], WorkloadSpec(), tmp_path / "run")
    run.update(sizes=RunSizes(epochs=5))
    (run.path / "child").mkdir()
    result = {"finished": True, "steps_run": 300, "steps_done": 300, "epochs_done": 1,
              "by_max_steps": by_max_steps}  # fmt: skip
    write_json(run.path / "child" / "outcome.json", result)
    done = Outcome(
        verdict="ok", complete=True, reason="", exit_code=0, wall_s=9.0, cpu_s=1.0,
        peak_rss_bytes=None, evidence=None, progress=None,
    )  # fmt: skip
    conclude_run(run, done, [], 9.0, StopRequest())
    assert run.info.status == "done"
    assert run.info.status_reason == reason
