from __future__ import annotations

from pathlib import Path

import pytest

from ctrkit.commands.learned_times import LearnedTimes
from ctrkit.core.config import WorkloadSpec, make_cell
from ctrkit.core.progress import Progress, Stage
from ctrkit.core.records import Recommendation
from ctrkit.core.runs import RunFolder
from ctrkit.supervise.supervisor import Outcome


def at(epoch: int, step: int, stage: Stage) -> Progress:
    return Progress(
        pid=1, stage=stage, epoch=epoch, step=step, steps=9, rows=0, writes=1, written_s=0.0,
        wait_s=0.0, loss=0.5,
    )  # fmt: skip


def outcome(verdict: str, progress: Progress | None, **longest_s: float) -> Outcome:
    return Outcome(
        verdict=verdict, reason="", exit_code=None, wall_s=1.0, cpu_s=1.0, peak_rss_bytes=None,
        complete=False, evidence=None, progress=progress, silent_s=62.0,
        longest_s={Stage[name]: seconds for name, seconds in longest_s.items()},
    )  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    made = RunFolder.create("train", ["train"], WorkloadSpec(), tmp_path / "run")
    cell = make_cell(threads=1)
    probed = Recommendation(cell=cell, reason="", stage_s={"first batch": 40.0, "unknown": 1.0})
    made.update(cell=cell, projection=probed)
    return made


def test_it_knows_what_the_probe_and_every_launch_have_measured(run: RunFolder) -> None:
    learned = LearnedTimes(run)
    assert learned.times.is_run
    assert learned.times.longest_s == {Stage.FIRST_BATCH: 40.0}
    learned.ended(outcome("ok", None, METRICS=100.0, FIRST_BATCH=2.0))
    again = LearnedTimes(RunFolder.open(run.path))
    assert again.times.longest_s == {Stage.FIRST_BATCH: 40.0, Stage.METRICS: 100.0}


def test_a_limit_is_raised_where_the_run_had_got_on(run: RunFolder) -> None:
    learned = LearnedTimes(run)
    assert learned.raised(outcome("crashed", at(2, 0, Stage.METRICS))) == ""
    assert learned.raised(outcome("deadlock", at(1, 0, Stage.FIRST_BATCH))) == ""
    words = learned.raised(outcome("stalled", at(1, 9, Stage.METRICS)))
    assert "the limit of stage 'metrics' is raised to 3 min 06 s" in words
    assert learned.times.raised_s == {Stage.METRICS: 186.0}


def test_a_resumed_run_had_got_on_before_its_first_batch(run: RunFolder) -> None:
    (run.path / "checkpoints").mkdir()
    (run.path / "checkpoints" / "last.pt").touch()
    assert "stage 'import'" in LearnedTimes(run).raised(outcome("deadlock", None))
