"""What `--resume` continues: the same experiment, or a refusal that shows the difference."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from ctrkit.commands.options import CommonOptions
from ctrkit.commands.resuming import (
    code_differences,
    given,
    kept_plan,
    resumable_spec,
    save_spec,
    starting_point,
)
from ctrkit.commands.usable_checkpoint import SavedCheckpoint, SavedPosition
from ctrkit.core.config import ChildSpec, TrainPlan, WorkloadSpec, encode, make_cell
from ctrkit.core.environment import code_versions
from ctrkit.core.errors import UsageError
from ctrkit.core.files import read_json, write_json
from ctrkit.core.plugins import setting_differences
from ctrkit.core.registry import source_version
from ctrkit.core.runs import RunFolder
from ctrkit.ctr.phase import Phase
from ctrkit.ctr.plugin import MdafPlugin
from ctrkit.supervise.time_limits import TimeLimits

PLAN = TrainPlan(
    run_folder="x", epochs=15, max_steps=100, checkpoint_every_s=60.0, allow_sleep=True,
    abort_after_s=3600.0,
)  # fmt: skip
OWN = WorkloadSpec(target="/my/loop.py:Work")
REVISED = WorkloadSpec(settings=encode(Phase(dropout=0.2)))


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    made = RunFolder.create("train", ["train"], OWN, tmp_path / "run")
    (made.path / "child").mkdir()
    spec = ChildSpec(
        kind="train", folder="elsewhere", workload=OWN, cell=make_cell(threads=1), train=PLAN
    )
    write_json(made.path / "child" / "spec.json", spec)
    return made


def save_workload(run: RunFolder, workload: WorkloadSpec) -> None:
    path = run.path / "child" / "spec.json"
    write_json(path, read_json(path) | {"workload": encode(workload)})


def common(**values: Any) -> CommonOptions:
    defaults = CommonOptions(
        data=None, settings=encode(Phase()), target="mdaf", time_limits=TimeLimits(), out=None
    )
    return dataclasses.replace(defaults, **values)


def test_an_option_is_given_in_either_form() -> None:
    assert given(["train", "--data", "x"], "--phase", "--data")
    assert given(["train", "--data=x"], "--data")
    assert not given(["train", "--data-x", "data"], "--data")


def test_a_spec_that_was_saved_can_be_resumed(run: RunFolder) -> None:
    (run.path / "child" / "spec.json").unlink()
    (run.path / "child").rmdir()
    folder = str(run.path / "child")
    save_spec(
        ChildSpec(kind="train", folder=folder, workload=OWN, cell=make_cell(threads=1), train=PLAN)
    )
    assert resumable_spec(run, common(), []).train == PLAN


def test_without_options_it_is_what_it_was(run: RunFolder) -> None:
    spec = resumable_spec(run, common(), ["train", "--resume", "run"])
    assert (spec.workload, spec.train) == (OWN, PLAN)


@pytest.mark.parametrize(
    ("argv", "values", "message"),
    [
        (["--workload", "o"], {"target": "/o.py:W"}, r"is /my/loop.py:Work, not /o.py:W"),
        (["--set", "x"], {"settings": {"dropout": 0.4}}, "its dropout is 0.2, not 0.4; leave"),
        (["--phase=x"], {"settings": {"lr": 1.0}}, "its dropout is 0.2, not 0.3, its lr is 0.0003"),
    ],
)
def test_another_experiment_is_refused_with_the_difference(
    run: RunFolder, argv: list[str], values: dict[str, Any], message: str
) -> None:
    if "settings" in values:
        save_workload(run, REVISED)
        values = {"settings": encode(Phase()) | values["settings"]}
    with pytest.raises(UsageError, match=message):
        resumable_spec(run, common(**values), argv)


def test_the_same_phase_may_be_named_again(run: RunFolder) -> None:
    save_workload(run, REVISED)
    same = common(settings=encode(Phase(dropout=0.2, name="mine", epochs=3, patience=1)))
    assert resumable_spec(run, same, ["--phase", "mine.toml"]).workload == REVISED


def test_a_spec_of_before_plug_ins_can_be_resumed(run: RunFolder) -> None:
    save_workload(run, REVISED)
    path = run.path / "child" / "spec.json"
    spec = read_json(path)
    old = spec["workload"].pop("settings")
    del old["block_rows"]  # which an older one did not have yet
    spec["workload"]["phase"] = old
    write_json(path, spec)
    assert resumable_spec(run, common(), []).workload == REVISED


def test_a_run_that_was_never_set_up_is_named(run: RunFolder) -> None:
    (run.path / "child" / "spec.json").unlink()
    with pytest.raises(UsageError, match="ended before it was set up; start a new run"):
        resumable_spec(run, common(), [])


@pytest.mark.parametrize(
    ("argv", "values", "expected"),
    [
        ([], {}, {}),
        ([], {"checkpoint_every_s": 5.0}, {}),  # a default that nobody named
        (["--checkpoint-every=5s"], {"checkpoint_every_s": 5.0}, {"checkpoint_every_s": 5.0}),
        ([], {"max_steps": 200}, {"max_steps": 200}),
        ([], {"epochs": 20}, {"epochs": 20, "max_steps": None}),
        ([], {"epochs": 20, "max_steps": 9}, {"epochs": 20, "max_steps": 9}),
        (["--no-allow-sleep"], {}, {"allow_sleep": False}),
        (["--allow-sleep"], {"allow_sleep": True}, {}),
        (["--abort-if-later-than", "2h"], {"abort_after_s": 7200.0}, {"abort_after_s": 7200.0}),
    ],
)
def test_the_plan_is_kept_but_for_what_is_named(
    argv: list[str], values: dict[str, Any], expected: dict[str, Any]
) -> None:
    defaults: dict[str, Any] = {
        "epochs": None, "max_steps": None, "checkpoint_every_s": 600.0, "allow_sleep": False,
        "abort_after_s": None,
    }  # fmt: skip
    assert kept_plan(PLAN, argv, **{**defaults, **values}) == dataclasses.replace(PLAN, **expected)


def save(run: RunFolder, code: dict[str, str]) -> None:
    (run.path / "checkpoints").mkdir(exist_ok=True)
    state = {"position": {"epoch": 2, "batch": 7}, "code": code}
    torch.save(state, run.path / "checkpoints" / "last.pt")


def test_before_the_first_checkpoint_it_begins_at_its_first_step(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert starting_point(run, OWN) is False
    assert "starts at its first step" in capsys.readouterr().err


def test_the_same_code_is_not_spoken_of(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    save(run, code_versions())
    assert starting_point(run, OWN) is True
    assert capsys.readouterr().err == ""


def test_other_code_is_warned_of(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    save(run, {**code_versions(), "torch": "1.0"})
    assert starting_point(run, OWN) is True
    now = code_versions()["torch"]
    assert f"warning: the checkpoint is of torch 1.0, this is {now}" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_told_of(
    run: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    save(run, {})
    folder = run.path / "checkpoints"
    (folder / "last.pt").rename(folder / "previous.pt")
    (folder / "last.pt").write_bytes(b"half")
    assert starting_point(run, OWN) is True
    words = capsys.readouterr().err
    assert "last.pt is damaged (kept as last.pt.damaged)" in words
    assert "continuing from previous.pt, the one before, epoch 2, batch 7" in words


def test_a_changed_workload_file_is_other_code(tmp_path: Path) -> None:
    file = tmp_path / "loop.py"
    file.write_text("x = 1\n")
    saved = SavedCheckpoint(
        position=SavedPosition(1, 0), code=code_versions(source_version(f"{file}:Work"))
    )
    file.write_text("x = 2\n")
    words = code_differences(saved, code_versions(source_version(f"{file}:Work")))
    assert words == "the workload's file has changed since the checkpoint"


def test_phases_differ_in_what_changes_a_step_only() -> None:
    def differences(**changes: Any) -> str:
        return setting_differences(MdafPlugin(), encode(Phase()), encode(Phase(**changes)))

    assert differences(epochs=3, patience=1, name="other") == ""
    assert differences(model="bst") == "its model is mamba, not bst"
