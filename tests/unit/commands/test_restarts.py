"""Restarts of a real run, with fake children."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from ctrkit.commands import restarts
from ctrkit.commands.restarts import RestartRules, Supervision, lost_steps, order_note
from ctrkit.commands.usable_checkpoint import SavedPosition
from ctrkit.core.child_records import ChildError, Inspection
from ctrkit.core.config import Cell, ChildSpec, TrainPlan, WorkloadSpec, make_cell
from ctrkit.core.errors import CtrkitError
from ctrkit.core.progress import Progress, Stage
from ctrkit.core.records import Recommendation
from ctrkit.core.runs import Incident, RunFolder
from ctrkit.supervise.stop import StopRequest
from ctrkit.supervise.supervisor import Outcome

WORKERS = make_cell(loader="batches", workers=2, threads=1, batch_size=64)
THREAD = make_cell(loader="thread", threads=1, batch_size=64)
INSPECTION = Inspection(
    devices=["cpu"], device_names={}, torch_version="", workload_name="mdaf",
    workload_fingerprint="", data_fingerprint="", axes=["loader", "workers"],
    loaders=["rows", "batches", "thread", "resident"], default_batch_size=64, has_task=True,
    sizes=None,
)  # fmt: skip


def at(epoch: int, step: int, stage: Stage = Stage.STEP, steps: int = 100) -> Progress:
    return Progress(
        pid=1, stage=stage, epoch=epoch, step=step, steps=steps, rows=0, writes=1, written_s=0.0,
        wait_s=0.0, loss=0.5,
    )  # fmt: skip


def outcome(verdict: str, **values: Any) -> Outcome:
    defaults: dict[str, Any] = {
        "reason": f"a {verdict}", "exit_code": None, "wall_s": 1.0, "cpu_s": 1.0,
        "peak_rss_bytes": None, "complete": verdict == "ok", "evidence": f"/x/{verdict}",
        "progress": at(1, 40),
    }  # fmt: skip
    return Outcome(verdict=verdict, **(defaults | values))


def save(run: RunFolder, epoch: int, batch: int) -> None:
    """A file as torch writes it, with a position."""
    (run.path / "checkpoints").mkdir(exist_ok=True)
    state = {"position": {"epoch": epoch, "batch": batch}}
    torch.save(state, run.path / "checkpoints" / "last.pt")


@dataclasses.dataclass
class Fake:
    """Launches that end as told; `before` is called with the number of each launch."""

    run: RunFolder
    ends: Sequence[Outcome]
    stop: StopRequest = dataclasses.field(default_factory=lambda: StopRequest(graceful=True))
    before: Callable[[int], None] = lambda number: None
    inspection: Inspection | None = dataclasses.field(default_factory=lambda: INSPECTION)
    specs: list[ChildSpec] = dataclasses.field(default_factory=list)
    folders: list[str] = dataclasses.field(default_factory=list)
    announced: list[Incident] = dataclasses.field(default_factory=list)
    looks: int = 0
    learn: Callable[[Outcome], str] = lambda outcome: ""

    def launch(self, spec: ChildSpec, evidence: Path) -> Outcome:
        self.specs.append(spec)
        self.folders.append(str(evidence.relative_to(self.run.path)))
        self.before(len(self.specs))
        end = self.ends[min(len(self.specs), len(self.ends)) - 1]
        if end.verdict != "ok":
            evidence.mkdir(parents=True)
        return end

    def look(self) -> Inspection:
        self.looks += 1
        if self.inspection is None:
            raise CtrkitError("cannot be inspected")
        return self.inspection

    def go(self, cell: Cell = WORKERS, **rules: Any) -> tuple[Outcome, list[Incident]]:
        spec = ChildSpec(
            kind="train", folder=str(self.run.path / "child"), workload=WorkloadSpec(), cell=cell,
            train=TrainPlan(run_folder=str(self.run.path), epochs=3),
        )  # fmt: skip
        supervision = Supervision(
            launch=self.launch, look=self.look, announce=self.announced.append, stop=self.stop,
            learn=self.learn,
        )  # fmt: skip
        return restarts.run_over_restarts(self.run, spec, RestartRules(**rules), supervision)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    made = RunFolder.create("train", ["train"], WorkloadSpec(), tmp_path / "run")
    made.update(cell=WORKERS)
    return made


def test_a_run_that_ends_well_has_no_incident(run: RunFolder) -> None:
    fake = Fake(run, [outcome("ok")])
    end, incidents = fake.go()
    assert (end.verdict, incidents, fake.looks) == ("ok", [], 0)
    assert not (run.path / "incidents.jsonl").exists()


def test_after_a_hang_it_goes_on_from_the_checkpoint_without_workers(run: RunFolder) -> None:
    fake = Fake(run, [outcome("deadlock"), outcome("ok")], before=lambda n: save(run, 1, 25))
    end, (incident,) = fake.go()
    assert end.verdict == "ok"
    first, second = fake.specs
    assert (first.cell, second.cell) == (WORKERS, THREAD)
    assert first.train is not None
    assert second.train == dataclasses.replace(first.train, resume=True)
    assert run.info.cell == THREAD
    assert fake.announced == [incident]
    (line,) = run.incidents()
    assert line["number"] == 1
    assert (line["verdict"], line["reason"]) == ("deadlock", "a deadlock")
    assert (line["epoch"], line["step"], line["stage"]) == (1, 40, "step")
    assert (line["action"], line["evidence"]) == ("restarted", "evidence/train-1")
    assert line["resumed_from"] == {"epoch": 1, "batch": 25}
    assert line["lost_steps"] == 15
    assert 0 <= line["lost_s"] < 60
    assert (line["cell_before"]["workers"], line["cell_after"]["workers"]) == (2, 0)
    assert line["note"] is None
    assert line["at"].endswith("+00:00")


def test_without_a_checkpoint_it_begins_anew(run: RunFolder) -> None:
    fake = Fake(run, [outcome("worker-died"), outcome("ok")])
    _, (incident,) = fake.go()
    assert fake.specs[1].train is not None
    assert fake.specs[1].train.resume is False
    assert incident.resumed_from == {"epoch": 1, "batch": 0}
    assert incident.lost_steps == 40


def test_a_truncated_checkpoint_loses_its_steps_and_not_the_run(run: RunFolder) -> None:
    def truncate(_: int) -> None:
        save(run, 2, 0)
        last = run.path / "checkpoints" / "last.pt"
        last.write_bytes(last.read_bytes()[:-50])

    fake = Fake(run, [outcome("deadlock"), outcome("ok")], before=truncate)
    end, (incident,) = fake.go()
    assert end.verdict == "ok"
    assert fake.specs[1].train is not None
    assert fake.specs[1].train.resume is False
    assert incident.resumed_from == {"epoch": 1, "batch": 0}


def test_the_checkpoint_before_a_damaged_one_is_gone_on_from_and_told_of(run: RunFolder) -> None:
    def damage(_: int) -> None:
        save(run, 2, 0)
        last = run.path / "checkpoints" / "last.pt"
        last.rename(last.with_name("previous.pt"))
        last.write_bytes(b"half")

    fake = Fake(run, [outcome("deadlock"), outcome("ok")], before=damage)
    _, (incident,) = fake.go()
    assert fake.specs[1].train is not None
    assert fake.specs[1].train.resume is True
    assert incident.resumed_from == {"epoch": 2, "batch": 0}
    assert "last.pt is damaged" in (incident.note or "")


def test_restarts_are_bounded_and_every_end_has_its_evidence(run: RunFolder) -> None:
    fake = Fake(run, [outcome("deadlock")])
    end, incidents = fake.go(max_restarts=2)
    assert end.verdict == "deadlock"
    assert [i.action for i in incidents] == ["restarted", "restarted", "stopped"]
    assert incidents[-1].why == "--max-restarts 2 have all been used"
    assert incidents[-1].cell_after is None
    assert fake.folders == ["evidence/train-1", "evidence/train-2", "evidence/train-3"]
    assert [spec.cell for spec in fake.specs] == [WORKERS, THREAD, THREAD]
    assert [line["number"] for line in run.incidents()] == [1, 2, 3]


def test_a_later_launch_goes_on_counting(run: RunFolder) -> None:
    Fake(run, [outcome("deadlock")]).go(fallback=False)
    fake = Fake(run, [outcome("stalled")])
    fake.go(fallback=False)
    assert fake.folders == ["evidence/train-2"]
    assert [line["number"] for line in run.incidents()] == [1, 2]


def test_no_fallback_stops_at_the_first(run: RunFolder) -> None:
    fake = Fake(run, [outcome("deadlock")], before=lambda n: save(run, 1, 30))
    end, (incident,) = fake.go(fallback=False)
    assert (end.verdict, len(fake.specs)) == ("deadlock", 1)
    assert (incident.action, incident.why) == ("stopped", "--no-fallback")
    assert (incident.resumed_from, incident.lost_steps) == (None, 10)
    assert fake.announced == []
    assert run.info.cell == WORKERS


def test_what_the_users_code_raises_is_not_tried_again(run: RunFolder) -> None:
    error = ChildError(verdict="crashed", stage="validation", message="ValueError", traceback="")
    late = at(1, 100, Stage.SHUTDOWN)
    fake = Fake(run, [outcome("crashed", exit_code=1, error=error, progress=late)])
    _, (incident,) = fake.go()
    assert (len(fake.specs), incident.action) == (1, "stopped")
    assert incident.stage == "validation"


def test_wrong_use_is_no_incident(run: RunFolder) -> None:
    error = ChildError(verdict="usage", stage="data", message="another phase", traceback="")
    fake = Fake(run, [outcome("setup-failed", exit_code=2, error=error)])
    end, incidents = fake.go()
    assert (end.error, incidents, run.incidents()) == (error, [], [])


def test_a_kill_from_outside_tries_the_same_cell_and_asks_nothing(run: RunFolder) -> None:
    fake = Fake(run, [outcome("crashed", exit_code=-9), outcome("ok")])
    _, (incident,) = fake.go()
    assert fake.specs[1].cell == WORKERS
    assert fake.looks == 0
    assert incident.why == "the signal came from outside"


def test_a_complete_result_is_only_noted(run: RunFolder) -> None:
    fake = Fake(run, [outcome("shutdown-hang", complete=True)])
    _, (incident,) = fake.go()
    assert (incident.action, incident.lost_steps, len(fake.specs)) == ("finished", None, 1)


@pytest.mark.parametrize("when", ["the hang", "the look", "the incident"])
def test_an_interrupt_starts_nothing_more(run: RunFolder, when: str) -> None:
    fake = Fake(run, [outcome("deadlock"), outcome("ok")])
    if when == "the hang":
        fake.before = lambda n: fake.stop.request()
    elif when == "the look":
        fake.inspection = None
        look = fake.look
        fake.look = lambda: (fake.stop.request(), look())[1]  # type: ignore[method-assign]
    else:
        fake.announced = type("Asks", (list,), {"append": lambda *_: fake.stop.request()})()
    end, (incident,) = fake.go()
    assert (end.verdict, len(fake.specs)) == ("deadlock", 1)
    assert incident.action == ("restarted" if when == "the incident" else "stopped")


def test_a_workload_that_cannot_be_looked_at_keeps_its_cell(run: RunFolder) -> None:
    fake = Fake(run, [outcome("deadlock"), outcome("ok")], inspection=None)
    fake.go()
    assert fake.specs[1].cell == WORKERS


def test_a_tied_cell_comes_first(run: RunFolder) -> None:
    rows = make_cell(loader="rows", threads=1, batch_size=64)
    run.update(projection=Recommendation(cell=WORKERS, reason="", tied=[rows]))
    fake = Fake(run, [outcome("deadlock"), outcome("ok")])
    fake.go()
    assert fake.specs[1].cell == rows


def test_an_earlier_error_is_not_taken_for_this_launchs(run: RunFolder) -> None:
    path = run.path / "child" / "measurement.json"
    path.parent.mkdir()
    path.write_text("{}")
    seen = []
    fake = Fake(run, [outcome("ok")], before=lambda n: seen.append(path.exists()))
    fake.go()
    assert seen == [False]


@pytest.mark.parametrize(
    ("progress", "position", "lost"),
    [
        (None, SavedPosition(1, 0), 0),
        (at(0, 0, Stage.DATA), SavedPosition(2, 30), 0),  # it had not begun
        (at(1, 40), SavedPosition(1, 25), 15),
        (at(1, 100, Stage.EPOCH_BOUNDARY), SavedPosition(2, 0), 0),
        (at(3, 40), SavedPosition(1, 25), 215),
        (at(3, 40, steps=0), SavedPosition(1, 25), None),
    ],
)
def test_steps_that_are_lost(progress: Progress | None, position: SavedPosition, lost: int) -> None:
    assert lost_steps(progress, position) == lost


def test_the_order_of_a_users_loader_is_the_users() -> None:
    custom = make_cell(loader="custom")
    assert order_note(THREAD, SavedPosition(2, 30)) is None
    assert "epoch 2 starts over" in (order_note(custom, SavedPosition(2, 0)) or "")
    assert "some rows of that epoch may come twice" in (
        order_note(custom, SavedPosition(2, 30)) or ""
    )


def test_what_was_learned_of_a_verdict_is_told_where_the_run_goes_on(run: RunFolder) -> None:
    fake = Fake(run, [outcome("stalled")], learn=lambda end: f"learned of a {end.verdict}")
    _, incidents = fake.go(max_restarts=1)
    notes = [incident.note or "" for incident in incidents]
    assert ["learned of a stalled" in note for note in notes] == [True, False]
