"""Which cell a training run takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ctrkit.commands.cell_choice import (
    CellChoice,
    check_cell,
    choice_from_file,
    default_choice,
    newest_fitting,
    unmeasured_choice,
    with_projection,
)
from ctrkit.core.child_records import Inspection
from ctrkit.core.config import LOADERS, Cell, ScriptSpec, WorkloadSpec, encode, make_cell
from ctrkit.core.environment import machine_fingerprint
from ctrkit.core.errors import UsageError
from ctrkit.core.files import write_json
from ctrkit.core.records import Origin, Recommendation, TrialRecord
from ctrkit.core.runs import RunFolder

INSPECTION = Inspection(
    devices=["cpu"], device_names={}, torch_version="2", workload_name="mdaf",
    workload_fingerprint="w", data_fingerprint="d", axes=["device", "loader", "workers"],
    loaders=list(LOADERS), default_batch_size=2048, has_task=True, sizes=None,
)  # fmt: skip


def probe_run(
    path: Path,
    *,
    workload: str = "w",
    data: str = "d",
    status: str = "done",
    searched: Sequence[Cell] = (),
    **axes: Any,
) -> Path:
    run = RunFolder.create("probe", [], WorkloadSpec(), path)
    run.update(machine_fingerprint="m", workload_fingerprint=workload, data_fingerprint=data,
               status=status)  # fmt: skip
    run.save_trials([
        TrialRecord(cell_id=cell.cell_id, launch=1, kind="full", cell=cell, verdict="ok")
        for cell in searched
    ])  # fmt: skip
    run.save_recommendation(
        Recommendation(cell=make_cell(**axes), reason="fastest", projected_epoch_s=10.0)
    )
    return run.path


def test_a_recommendation_for_a_script_says_that_its_command_is_missing(tmp_path: Path) -> None:
    script = ScriptSpec(command=["python", "my train.py"], folder="/x")
    origin = Origin(workload=WorkloadSpec(target="script", script=script))
    best = Recommendation(cell=make_cell(loader="script", workers=2), reason="", origin=origin)
    path = tmp_path / "recommendation.json"
    write_json(path, encode(best))
    with pytest.raises(UsageError, match="for a script; write its command: ctrkit train") as raised:
        choice_from_file(path, INSPECTION, {})
    assert str(raised.value).endswith(f"--config {path} -- python 'my train.py'")


def test_defaults() -> None:
    assert default_choice(INSPECTION, {}).cell == make_cell(batch_size=2048)
    assert default_choice(INSPECTION, {"workers": 2}).cell.loader == "batches"
    assert default_choice(INSPECTION, {}).projection is None


def test_where_nothing_could_be_measured_the_default_cell_says_why() -> None:
    choice = unmeasured_choice(INSPECTION, {"workers": 2}, "other processes took 1.9 of 2 cores")
    assert choice.cell == default_choice(INSPECTION, {"workers": 2}).cell
    assert choice.projection is None
    assert "not measured: other processes took 1.9 of 2 cores" in choice.why


def test_the_newest_fitting_recommendation_is_taken(tmp_path: Path) -> None:
    runs = [
        probe_run(tmp_path / "other-data", data="x"),
        probe_run(tmp_path / "other-workload", workload="x"),
        probe_run(tmp_path / "other-batch", batch_size=64),
        probe_run(tmp_path / "other-numerics", optimizer="sparse-adam"),
        probe_run(tmp_path / "fits", loader="rows"),
        probe_run(tmp_path / "older", loader="thread"),
    ]
    choice = newest_fitting(runs, "m", INSPECTION, {})
    assert choice is not None
    assert choice.cell.loader == "rows"
    assert choice.projection is not None
    assert newest_fitting(runs, "another machine", INSPECTION, {}) is None
    older = newest_fitting(runs, "m", INSPECTION, {"loader": "thread"})
    assert older is not None
    assert older.cell.loader == "thread"
    asked = newest_fitting(runs, "m", INSPECTION, {"batch_size": 64})
    assert asked is not None
    assert asked.cell.batch_size == 64
    lazy = newest_fitting(runs, "m", INSPECTION, {"optimizer": "sparse-adam"})
    assert lazy is not None
    assert lazy.cell.optimizer == "sparse-adam"


def test_a_probe_that_searched_what_would_be_searched_now_goes_before_a_newer_narrow_one(
    tmp_path: Path,
) -> None:
    cells = [make_cell(loader=loader) for loader in ("thread", "rows", "batches")]
    gate = probe_run(tmp_path / "gate", searched=cells[:1], loader="thread")
    stopped = probe_run(tmp_path / "stopped", searched=cells, status="interrupted", loader="rows")
    narrow = probe_run(tmp_path / "narrow", searched=cells[:2], loader="rows")
    wide = probe_run(tmp_path / "wide", searched=cells, loader="batches")

    def taken(*runs: Path) -> CellChoice | None:
        return newest_fitting(runs, "m", INSPECTION, {}, cells)

    found = taken(gate, stopped, narrow, wide)
    assert found is not None
    assert found.cell.loader == "batches"
    assert taken(gate, stopped) is None  # neither has chosen among cells
    left = taken(gate, narrow)
    assert left is not None
    assert left.cell.loader == "rows"
    assert "did not try 1 of the 3 configurations" in left.why


def test_a_cell_that_was_named_has_the_projection_of_the_newest_probe_of_it(
    tmp_path: Path,
) -> None:
    runs = [probe_run(tmp_path / "rows", loader="rows"), probe_run(tmp_path / "thread")]
    choice = with_projection(default_choice(INSPECTION, {}), runs, "m", INSPECTION)
    assert choice.cell == make_cell(batch_size=2048)
    assert choice.projection is not None
    assert "projected by the probe of" in choice.why
    other = default_choice(INSPECTION, {"workers": 3})
    assert with_projection(other, runs, "m", INSPECTION) == other
    assert with_projection(choice, runs, "another machine", INSPECTION) == choice


def test_damaged_runs_are_passed_over(tmp_path: Path) -> None:
    path = probe_run(tmp_path / "damaged")
    (path / "recommendation.json").write_text("{")
    assert newest_fitting([path], "m", INSPECTION, {}) is None


def test_a_file_with_axes_or_a_recommendation(tmp_path: Path) -> None:
    write_json(tmp_path / "cell.json", {"loader": "batches", "workers": 1})
    choice = choice_from_file(tmp_path / "cell.json", INSPECTION, {})
    assert choice.cell == make_cell(loader="batches", workers=1, batch_size=2048)
    path = probe_run(tmp_path / "run", loader="batches", workers=2) / "recommendation.json"
    assert "made on another machine" in choice_from_file(path, INSPECTION, {}).warning
    RunFolder.open(path.parent).update(machine_fingerprint=machine_fingerprint())
    assert choice_from_file(path, INSPECTION, {}).projection is not None
    changed = choice_from_file(path, INSPECTION, {"workers": 0})
    assert changed.cell == make_cell(loader="batches", workers=0)
    assert changed.projection is None  # what was projected was another cell


@pytest.mark.parametrize(
    ("content", "message"), [([1], "must be a JSON object"), ({"wrokers": 1}, "axis 'wrokers'")]
)
def test_bad_files(tmp_path: Path, content: object, message: str) -> None:
    write_json(tmp_path / "cell.json", content)
    with pytest.raises(UsageError, match=message):
        choice_from_file(tmp_path / "cell.json", INSPECTION, {})


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"device": "cuda"}, "device cuda is not available here; there is cpu"),
        ({"loader": "custom"}, "loader custom: the workload has rows"),
        ({"loader": "thread", "workers": 2}, "thread has no worker processes"),
        ({"nproc": 2}, "--nproc 2: mdaf cannot share a batch among several processes"),
    ],
)
def test_cells_that_cannot_run_here(axes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_cell(CellChoice(cell=make_cell(**axes), why=""), INSPECTION)


def test_mps_has_one_process() -> None:
    inspection = dataclasses.replace(INSPECTION, devices=["cpu", "mps"], axes=["nproc"])
    cell = make_cell(nproc=2)
    assert check_cell(CellChoice(cell=cell, why=""), inspection).cell == cell
    on_mps = CellChoice(cell=make_cell(nproc=2, device="mps"), why="")
    with pytest.raises(UsageError, match="device mps has one process; take --device cpu"):
        check_cell(on_mps, inspection)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ""),
        ({"workload_fingerprint": "x"}, "is of another workload, or of another version of it"),
        ({"data_fingerprint": "x"}, "was made with other data"),
        ({"machine_fingerprint": "x"}, "was made on another machine"),
        ({"workload": WorkloadSpec(script=ScriptSpec(command=["a.sh"], folder="/"))}, "`a.sh`"),
    ],
)
def test_a_recommendation_of_something_else_is_told_and_projects_nothing(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    own = INSPECTION
    values = {
        "workload": WorkloadSpec(), "workload_fingerprint": own.workload_fingerprint,
        "data_fingerprint": own.data_fingerprint, "machine_fingerprint": machine_fingerprint(),
    }  # fmt: skip
    recommended = Recommendation(cell=make_cell(), reason="", origin=Origin(**(values | changes)))
    path = tmp_path / "recommendation.json"
    write_json(path, encode(recommended))
    choices: list[dict[str, Any]] = [{}, {"threads": 7}]
    for axes in choices:
        choice = choice_from_file(path, own, axes)
        assert words in choice.warning
        assert bool(choice.warning) == bool(words)
    assert (choice_from_file(path, own, {}).projection is None) == bool(words)


def test_a_loader_that_takes_any_axis_is_still_the_only_one() -> None:
    """`def make_loader(workers=0, **k)` heeds `loader`, too, and has but its own."""
    own = dataclasses.replace(
        INSPECTION, axes=["loader", "workers", "batch_size"], loaders=["custom"]
    )
    for axes in ({}, {"workers": 1}):
        choice = check_cell(default_choice(own, axes), own)
        assert choice.cell.loader == "custom"
