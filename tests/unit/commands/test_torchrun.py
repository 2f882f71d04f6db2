"""What a rank started by torchrun does with the command line."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from ctrkit.commands.torchrun import (
    Launch,
    axes_of_launch,
    begun_run,
    launch_of_environment,
    note_restart,
    resuming_arguments,
)
from ctrkit.core.config import WorkloadSpec, make_cell
from ctrkit.core.environment import physical_cores
from ctrkit.core.errors import UsageError
from ctrkit.core.runs import RunFolder

LAUNCH = Launch(rank=0, world=4, local_world=2)
ENVIRONMENT = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}
LATER_S = 4e9


def begun(path: Path, argv: list[str]) -> RunFolder:
    run = RunFolder.create("train", argv, WorkloadSpec(), path)
    (path / "child").mkdir()
    (path / "child" / "spec.json").touch()
    return run


def test_torchrun_is_known_by_its_environment() -> None:
    assert launch_of_environment(ENVIRONMENT) == Launch(rank=1, world=4, local_world=2)
    assert launch_of_environment({"RANK": "1"}) is None


def test_it_says_how_many_there_are_and_each_has_its_share_of_the_cores() -> None:
    threads = max(1, physical_cores() // 2)
    assert axes_of_launch({"workers": (1,)}, LAUNCH, auto_device=False) == {
        "workers": (1,), "nproc": (4,), "threads": (threads,),
    }  # fmt: skip
    assert axes_of_launch({"threads": (7,)}, LAUNCH, auto_device=False)["threads"] == (7,)
    assert axes_of_launch({"nproc": (4,)}, LAUNCH, auto_device=False)["nproc"] == (4,)
    with pytest.raises(UsageError, match="--nproc: torchrun has started 4"):
        axes_of_launch({"nproc": (2,)}, LAUNCH, auto_device=False)
    with pytest.raises(UsageError, match="torchrun ... -m ctrkit train"):
        axes_of_launch({}, dataclasses.replace(LAUNCH, rank=1), auto_device=False)
    with pytest.raises(UsageError, match="--auto-device: not under torchrun"):
        axes_of_launch({}, LAUNCH, auto_device=True)


def test_a_group_that_is_started_again_finds_the_run_in_its_folder(tmp_path: Path) -> None:
    out = str(tmp_path / "run")
    for argv in (["train", "--out", out, "--quiet"], ["train", f"--out={out}", "--quiet"]):
        assert begun_run(argv, [], LATER_S) is None
        run = begun(tmp_path / "run", argv)
        found = begun_run(argv, [], LATER_S)
        assert found is not None
        assert resuming_arguments(argv, found) == ["train", "--quiet", "--resume", str(run.path)]
        assert begun_run([*argv, "--epochs", "9"], [], LATER_S) is None
        (run.path / "child" / "spec.json").unlink()
        assert begun_run(argv, [], LATER_S) is None
        (run.path / "child").rmdir()
        (run.path / "run.json").unlink()
        run.path.rmdir()


def test_without_a_folder_it_is_the_one_begun_since_the_agent_was(tmp_path: Path) -> None:
    run = begun(tmp_path / "run", ["train", "--quiet"])
    runs = [tmp_path / "missing", run.path]
    found = begun_run(["train", "--quiet"], runs, 0.0)
    assert found is not None
    assert found.path == run.path
    assert begun_run(["train", "--quiet"], runs, LATER_S) is None
    assert begun_run(["train"], runs, 0.0) is None
    assert begun_run(["train", "--resume", "x"], runs, 0.0) is None


def test_there_is_only_train() -> None:
    with pytest.raises(UsageError, match="only ctrkit train"):
        begun_run(["probe"], [], 0.0)


def test_that_it_was_started_again_is_an_incident_unless_it_was_done(tmp_path: Path) -> None:
    run = begun(tmp_path / "run", ["train"])
    note_restart(run)
    assert run.incidents() == []
    run.update(cell=make_cell(nproc=4), status="interrupted")
    note_restart(run)
    (incident,) = run.incidents()
    assert "torchrun started all 4 again" in incident["reason"]
    run.update(status="done")
    note_restart(run)
    assert len(run.incidents()) == 1
