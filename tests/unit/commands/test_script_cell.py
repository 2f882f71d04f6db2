"""Which settings a script is run with, and what cannot be changed in one."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from ctrkit.commands.script_cell import choose_script_cell, seen_cell
from ctrkit.core.config import Cell, ChildSpec, ScriptSpec, WorkloadSpec, encode, make_cell
from ctrkit.core.environment import machine_fingerprint
from ctrkit.core.errors import UsageError
from ctrkit.core.files import write_json
from ctrkit.core.records import Origin, Recommendation
from ctrkit.core.runs import RunFolder
from ctrkit.core.script_records import ScriptAnswer, ScriptLoader, ScriptSeen
from ctrkit.core.script_sources import sources_of

PLAIN = ScriptSpec(command=["python", "train.py"], folder="/u")
FLAGS = ScriptSpec(command=["python", "train.py", "-j", "{workers}"], folder="/u")
FAST = make_cell(loader="custom", workers=4, start_method="fork", prefetch=2)
WRITTEN = make_cell(loader="custom")


def recommendation(cell: Cell, as_written: Cell = WRITTEN) -> Recommendation:
    return Recommendation(
        cell=cell, reason="fastest", tied=[], runner_up=None, projected_epoch_s=10.0,
        projected_epoch_s_low=9.0, projected_epoch_s_high=11.0, projected_total_s=30.0,
        projected_total_s_low=27.0, projected_total_s_high=33.0,
        script=ScriptAnswer(as_written=as_written),
    )  # fmt: skip


def choose(script: ScriptSpec = PLAIN, wanted: dict[str, Any] | None = None, **more: Any) -> Any:
    values = {"config": None, "recommended": None} | more
    return choose_script_cell(script, wanted or {}, values["config"], values["recommended"])


def test_without_axes_nothing_is_put_in() -> None:
    choice = choose()
    assert choice.put_in == []
    assert choice.why.startswith("as written")


def test_an_axis_that_is_named_is_put_in_and_nothing_else() -> None:
    choice = choose(wanted={"workers": 3})
    assert choice.put_in == ["workers"]
    assert choice.cell.workers == 3


def test_an_axis_with_a_placeholder_goes_through_the_command_only() -> None:
    choice = choose(FLAGS, {"workers": 3, "persistent": True})
    assert choice.put_in == ["persistent"]
    assert choice.cell.workers == 3
    with pytest.raises(UsageError, match=r"\{workers\}.*--workers"):
        choose(FLAGS)


@pytest.mark.parametrize("axis", ["loader", "threads", "optimizer", "precision", "compile"])
def test_what_a_script_cannot_be_made_to_do_is_refused(axis: str) -> None:
    with pytest.raises(UsageError, match=f"--{axis}: cannot be changed"):
        choose(wanted={axis: "x"})


@pytest.mark.parametrize("axis", ["device", "batch_size", "nproc"])
def test_what_needs_a_flag_of_the_script_says_so(axis: str) -> None:
    with pytest.raises(UsageError, match=rf"write \{{{axis}\}} in the command"):
        choose(wanted={axis: "cpu" if axis == "device" else 2})


def test_a_recommendation_is_put_in_with_its_projection(tmp_path: Path) -> None:
    found = recommendation(FAST)
    write_json(tmp_path / "recommendation.json", found)
    for more in ({"recommended": found}, {"config": tmp_path / "recommendation.json"}):
        choice = choose(**more)
        assert choice.cell.workers == 4
        assert set(choice.put_in) >= {"workers", "start_method", "prefetch"}
        assert choice.projection == found
        other = choose(wanted={"workers": 2}, **more)
        assert other.cell.workers == 2
        assert other.projection is None


def test_where_as_written_is_best_nothing_is_put_in() -> None:
    choice = choose(recommended=recommendation(WRITTEN))
    assert choice.put_in == []
    assert choice.projection is not None


def test_a_config_of_axes(tmp_path: Path) -> None:
    path = tmp_path / "cell.json"
    path.write_text(json.dumps({"workers": 2, "start_method": "spawn"}))
    assert choose(config=path).put_in == ["workers", "start_method"]
    path.write_text(json.dumps({"worker": 2}))
    with pytest.raises(UsageError, match="unknown axis 'worker'"):
        choose(config=path)
    path.write_text(json.dumps({"device": "cuda"}))
    with pytest.raises(UsageError, match="device"):
        choose(config=path)


def test_no_workers_need_no_start_method() -> None:
    choice = choose(wanted={"workers": 0, "prefetch": 4})
    assert choice.cell.prefetch is None
    assert dataclasses.asdict(choice.cell)["workers"] == 0


OTHER = ScriptSpec(command=["python", "odd.py", "--lr", "1"], folder="/u")
MACHINE = machine_fingerprint()


@pytest.mark.parametrize(
    ("origin", "words"),
    [
        (Origin(workload=WorkloadSpec(script=PLAIN), machine_fingerprint=MACHINE), ""),
        (Origin(workload=WorkloadSpec(script=OTHER), machine_fingerprint=MACHINE),
         "is of the script `python odd.py --lr 1`: its configuration is used, its projection is"),
        (Origin(workload=WorkloadSpec(target="mdaf"), machine_fingerprint=MACHINE),
         "is of the workload mdaf"),
        (Origin(workload=WorkloadSpec(script=PLAIN), machine_fingerprint="m"),
         "was made on another machine"),
    ],
)  # fmt: skip
def test_a_recommendation_of_something_else_is_told_and_projects_nothing(
    tmp_path: Path, origin: Origin, words: str
) -> None:
    path = tmp_path / "recommendation.json"
    write_json(path, encode(dataclasses.replace(recommendation(FAST), origin=origin)))
    choice = choose(config=path)
    assert choice.cell.workers == FAST.workers
    assert words in choice.warning
    assert "\n" not in choice.warning
    assert bool(choice.warning) == bool(words) == (choice.projection is None)


def test_a_recommendation_from_before_is_known_by_the_run_folder_it_lies_in(
    tmp_path: Path,
) -> None:
    run = RunFolder.create("probe", [], WorkloadSpec(script=OTHER), tmp_path / "r")
    run.save_recommendation(recommendation(FAST))
    path = run.path / "recommendation.json"
    assert "`python odd.py --lr 1`" in choose(config=path).warning
    moved = tmp_path / "moved.json"
    path.rename(moved)
    assert choose(config=moved).warning == ""


def test_the_same_files_in_a_copy_of_the_folder_are_the_same_script(tmp_path: Path) -> None:
    specs = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.py").write_text("pass")
        specs.append(dataclasses.replace(PLAIN, folder=str(tmp_path / name)))
    path = tmp_path / "recommendation.json"
    origin = Origin(workload=WorkloadSpec(script=specs[0]), machine_fingerprint=MACHINE)
    write_json(path, encode(dataclasses.replace(recommendation(FAST), origin=origin)))
    assert choose(specs[1], config=path).warning == ""
    (tmp_path / "b" / "train.py").write_text("other")
    assert "is of the script" in choose(specs[1], config=path).warning


@pytest.mark.parametrize(
    ("workers", "put_in", "start_method"), [(0, ["workers"], None), (2, ["workers"], "fork"),
                                            (9, [], "fork")],
)  # fmt: skip
def test_the_cell_that_was_seen_is_as_written_but_for_what_was_put_in(
    workers: int, put_in: list[str], start_method: str | None
) -> None:
    loader = ScriptLoader(number=0, dataset="D", workers=4, batch_size=16, prefetch=3)
    seen = ScriptSeen(
        pid=1, loaders=[loader], train_loader=0, threads=2, default_start_method="fork"
    )
    spec = ChildSpec(
        kind="train", folder="/r", workload=WorkloadSpec(script=PLAIN),
        cell=make_cell(loader="script", workers=workers), put_in=put_in,
    )  # fmt: skip
    cell = seen_cell(spec, seen)
    assert (cell.loader, cell.batch_size) == ("script", 16)
    assert cell.workers == (workers if put_in else 4)
    assert cell.start_method == start_method


def test_a_recommendation_in_a_file_of_an_edited_script_is_warned_of(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("import net\n")
    (tmp_path / "net.py").write_text("WIDTH = 8\n")
    script = ScriptSpec(command=["python", "train.py"], folder=str(tmp_path))
    found = recommendation(FAST)
    assert found.script is not None
    found = dataclasses.replace(
        found,
        script=dataclasses.replace(found.script, sources=sources_of(script)),
        origin=Origin(
            workload=WorkloadSpec(target="script", script=script),
            machine_fingerprint=machine_fingerprint(),
        ),
    )
    path = tmp_path / "recommendation.json"
    write_json(path, found)
    assert choose(script, config=path).warning == ""
    elsewhere = tmp_path / "copy"
    elsewhere.mkdir()
    for name in ("train.py", "net.py"):
        (elsewhere / name).write_text((tmp_path / name).read_text())
    moved = dataclasses.replace(script, folder=str(elsewhere))
    assert choose(moved, config=path).warning == ""
    (elsewhere / "net.py").write_text("WIDTH = 9\n")
    assert f"in {tmp_path}: its configuration is used" in choose(moved, config=path).warning
    (tmp_path / "net.py").write_text("WIDTH = 9\n")
    (tmp_path / "train.py").write_text("import net  # edited\n")
    choice = choose(script, config=path)
    assert "train.py and 1 other file of it were edited since the probe" in choice.warning
    assert choice.projection is None
    assert choice.cell.workers == 4
