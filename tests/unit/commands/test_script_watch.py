"""What is reported while a script trains: a line for each thing worth one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ctrkit.commands.script_watch import ScriptWatch
from ctrkit.core.config import SCRIPT_TARGET, ChildSpec, ScriptSpec, WorkloadSpec, make_cell
from ctrkit.core.epochs import EPOCHS, read_epochs
from ctrkit.core.progress import Progress, Stage
from ctrkit.core.runs import RunFolder
from ctrkit.report.live_script import ScriptDisplay
from ctrkit.supervise.script_signals import PassedOn
from ctrkit.supervise.time_limits import SCRIPT_LIMITS
from ctrkit.supervise.walltime import Deadline
from ctrkit.supervise.watching import Tick


class Screen:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.titles: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def title(self, words: str) -> None:
        self.titles.append(words)


class Stand:
    """A watch of a run in a folder, with a clock of its own."""

    def __init__(self, folder: Path, *words: str, deadline: Deadline | None = None) -> None:
        script = ScriptSpec(command=list(words) or ["python", "train.py"], folder="/u")
        workload = WorkloadSpec(target=SCRIPT_TARGET, script=script)
        self.run = RunFolder.create("train", ["train"], workload, folder / "run")
        self.run.update(cell=make_cell(loader="custom"))
        self.child = self.run.path / "child"
        self.child.mkdir()
        spec = ChildSpec(kind="train", folder=str(self.child), workload=workload, cell=make_cell())
        self.now_s, self.screen = 100.0, Screen()
        display = ScriptDisplay(quiet=False, clock=lambda: self.now_s)
        display.use(self.screen)
        self.stop = PassedOn()
        self.watch = ScriptWatch(
            self.run, spec, display, self.stop, deadline,
            clock=lambda: self.now_s, unix_s=lambda: self.now_s,
        )  # fmt: skip

    def tick(self, wall_s: float, stage: Stage | None = None, step: int = 0) -> None:
        self.now_s += 10
        progress = None
        if stage is not None:
            progress = Progress(
                pid=7, stage=stage, epoch=1, step=step, steps=50, rows=8 * step, writes=step + 1,
                written_s=self.now_s, wait_s=0.0, loss=float("nan"),
            )  # fmt: skip
        self.watch.tick(Tick(
            wall_s=wall_s, silent_s=0.0, stage=stage or Stage.IMPORT,
            limit=SCRIPT_LIMITS.for_stage(Stage.STEP), progress=progress, sample=None,
        ))  # fmt: skip


def test_epochs_are_shown_and_kept_as_they_come(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    seen = {"pid": 7, "epochs": 3, "epochs_from": "train.py:9", "epoch_batches": 50}
    (stand.child / "script.json").write_text(json.dumps(seen))
    path = stand.child / "script-epochs.jsonl"
    path.write_text('{"began_s": 0.0, "ended_s": 9.0, "rows": 400}\n')
    stand.tick(5, Stage.STEP, 3)
    stand.tick(6, Stage.STEP, 4)
    assert stand.screen.lines == ["ctrkit: epoch 1: 9 s"]
    assert stand.run.info.planned_epochs == 3
    with open(path, "a") as file:
        file.write('{"began_s": 10.0, "ended_s": 18.0, "rows": 400}\n')
    stand.tick(7, Stage.STEP, 5)
    assert [row["wall_s"] for row in read_epochs(stand.run.path / EPOCHS)] == [10, 8]
    assert stand.screen.titles[-1].startswith("epoch 1/3 · step 5/50")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("python3", "-I", "train.py"), "python -I keeps the observer out"),
        (("/usr/bin/python3.9", "-S", "train.py"), "python -S"),
        (("bash", "-I", "run.sh"), "no Python process"),
        (("python", "-uI", "train.py"), "python -I"),
        # options of the script, and of what Python is told, are none of Python's own
        (("python", "train.py", "-I"), "no Python process"),
        (("python", "-m", "pkg.train", "-S"), "no Python process"),
        (("python", "-X", "Edev", "-W", "Ignore", "train.py"), "no Python process"),
    ],
)
def test_one_that_is_not_observed_is_told_once(
    tmp_path: Path, words: tuple[str, ...], why: str
) -> None:
    stand = Stand(tmp_path, *words)
    stand.tick(30)
    assert stand.screen.lines == []
    stand.tick(70)
    stand.tick(80)
    stand.watch.tell_unobserved()
    (line,) = stand.screen.lines
    assert why in line


def test_a_run_that_will_not_end_in_time_is_told_once_and_noted(tmp_path: Path) -> None:
    stand = Stand(tmp_path, deadline=Deadline(at_unix_s=1000.0, said_by="--ends-by 07:30"))
    stand.watch.compare_with_deadline(1010.0)
    stand.watch.compare_with_deadline(None)
    assert stand.screen.lines == []
    stand.watch.compare_with_deadline(4600.0)
    stand.watch.compare_with_deadline(5000.0)
    (line,) = stand.screen.lines
    assert "will not end in time" in line
    assert "1 h 00 min after --ends-by 07:30" in line
    (incident,) = stand.run.incidents()
    assert (incident["verdict"], incident["action"]) == ("late", "noted")


def test_one_whose_time_is_over_is_told_even_if_its_end_is_not_known(tmp_path: Path) -> None:
    stand = Stand(tmp_path, deadline=Deadline(at_unix_s=1000.0, said_by="the end of Slurm job 7"))
    stand.now_s = 1001.0
    stand.watch.compare_with_deadline(None)
    (line,) = stand.screen.lines
    assert "continues after the end of Slurm job 7" in line


def test_what_is_passed_on_and_what_the_observer_notes_are_told(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    seen = {"pid": 7, "notes": ["the loader has more batches than its len() says"]}
    (stand.child / "script.json").write_text(json.dumps(seen))
    stand.stop.receive(15)
    stand.tick(5, Stage.STEP, 1)
    stand.tick(6, Stage.STEP, 2)
    assert stand.screen.lines == [
        "ctrkit: SIGTERM is passed on to the script",
        "ctrkit: the loader has more batches than its len() says",
    ]


@pytest.mark.parametrize(
    ("exit_code", "epochs", "batches"), [(0, 1, 31), (3, 0, 250), (-9, 0, 250)]
)
def test_an_epoch_that_was_cut_counts_where_the_script_ended_well(
    tmp_path: Path, exit_code: int, epochs: int, batches: int
) -> None:
    stand = Stand(tmp_path)
    loader = {"number": 0, "dataset": "D", "length": 250, "batch_size": 4, "is_train": True}
    seen = {"pid": 7, "epochs": 1, "epoch_batches": 31, "clock": "loader", "train_loader": 0,
            "loaders": [loader], "threads": 2}  # fmt: skip
    (stand.child / "script.json").write_text(json.dumps(seen))
    line = '{"began_s": 0.0, "ended_s": 9.0, "rows": 124, "cut": true}\n'
    (stand.child / "script-epochs.jsonl").write_text(line)
    stand.tick(5, Stage.STEP, 3)
    assert stand.screen.lines == []
    stand.watch.ended(exit_code)
    assert len(stand.screen.lines) == epochs
    sizes, cell = stand.run.info.sizes, stand.run.info.cell
    assert sizes is not None
    assert cell is not None
    assert sizes.train_batches == batches
    assert (cell.loader, cell.batch_size, cell.threads) == ("script", 4, 2)
