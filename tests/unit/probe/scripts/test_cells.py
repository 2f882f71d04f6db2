"""The cells of a script: as written first, impossible ones with a reason."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ctrkit.core.config import Cell, ScriptSpec
from ctrkit.core.script_records import ScriptLoader, ScriptSeen
from ctrkit.probe import matrix
from ctrkit.probe.matrix import MatrixPlan
from ctrkit.probe.scripts.as_written import (
    as_written_cell,
    first_values,
    put_in_axes,
    script_inspection,
    script_name,
)
from ctrkit.probe.scripts.cells import refusal_of, script_matrix

LOADER = ScriptLoader(number=0, dataset="Rows", length=100, batch_size=32, is_train=True)


def script(*command: str) -> ScriptSpec:
    return ScriptSpec(command=list(command or ("python", "train.py")), folder="/nowhere")


def seen(**loader: Any) -> ScriptSeen:
    return ScriptSeen(
        pid=1, devices=["cpu"], threads=2, default_start_method="fork", clock="loader",
        loaders=[replace(LOADER, **loader)], train_loader=0, epochs=3,
    )  # fmt: skip


def plan(one: ScriptSpec, what: ScriptSeen, **axes: Any) -> tuple[Cell, MatrixPlan]:
    values = first_values(one, axes)
    own = as_written_cell(one, what, values)
    inspection = script_inspection(one, what, own, None)
    return own, script_matrix(one, what, own, inspection, axes)


def test_the_script_as_written_comes_first_and_is_the_baseline() -> None:
    own, cells = plan(script(), seen(workers=3, prefetch=4, persistent=True, pin=False))
    assert (own.workers, own.start_method, own.prefetch, own.persistent) == (3, "fork", 4, True)
    assert (own.batch_size, own.threads) == (32, 2)
    assert cells.cells[0] == cells.baseline == own


def test_workers_are_varied_with_the_scripts_own_way_to_start_them() -> None:
    own, cells = plan(script(), seen())
    assert own.workers == 0
    tried = {(c.workers, c.start_method) for c in cells.cells}
    assert {(0, None), (2, "fork")} <= tried
    assert {c.batch_size for c in cells.cells} == {32}


def test_a_script_on_cuda_that_forks_its_workers_is_tried_with_more_of_them() -> None:
    what = replace(seen(pin=True, workers=1, prefetch=2), device="cuda", devices=["cpu", "cuda"])
    own, cells = plan(script(), what)
    assert (own.device, own.start_method) == ("cuda", "fork")
    assert cells.refused == ()
    assert {0, 1, 2} <= {cell.workers for cell in cells.cells if cell.device == "cuda"}


@pytest.mark.parametrize("group", [{"ranks": 8}, {"trainers": 8}])
def test_ranks_share_the_cores(group: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them starts workers of its own."""
    monkeypatch.setattr(matrix, "usable_cores", lambda: 96.0)
    monkeypatch.setattr(matrix, "physical_cores", lambda: 96)
    on_cuda = replace(seen(workers=2, prefetch=2), device="cuda", devices=["cpu", "cuda"])
    for what, alone, together in (
        (on_cuda, {0, 2, 4, 8, 16, 32}, {0, 2, 4, 8, 12}),
        (seen(), {0, 2, 8, 32}, {0, 2, 8, 11}),
    ):
        assert {cell.workers for cell in plan(script(), what)[1].cells} == alone
        _, cells = plan(script(), replace(what, **group))
        assert ({cell.workers for cell in cells.cells}, cells.ranks) == (together, 8)


def test_the_script_as_written_is_never_refused() -> None:
    what = replace(seen(workers=2, prefetch=2), device="mps", devices=["cpu", "mps"])
    own, cells = plan(script(), what)
    assert own.start_method == "fork"
    assert own in cells.cells
    assert cells.refused
    assert own not in dict(cells.refused)


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_pinned_memory_that_a_device_ignores_hides_no_configuration(device: str) -> None:
    what = replace(seen(pin=True, workers=1), device=device, devices=["cpu", device])
    own, cells = plan(script(), what)
    assert own.pin is False
    assert {0, 1} <= {cell.workers for cell in cells.cells}


def test_pinned_memory_of_a_script_is_tried_where_the_device_is_a_placeholder() -> None:
    what = replace(seen(pin=True), devices=["cpu", "cuda"])
    _, cells = plan(script("python", "train.py", "--device", "{device}"), what)
    assert {(c.device, c.pin) for c in cells.cells} == {
        ("cpu", False), ("cuda", False), ("cuda", True),
    }  # fmt: skip


def test_device_and_batch_size_need_a_placeholder() -> None:
    _, cells = plan(script(), seen(), batch_size=(16, 64))
    assert {c.batch_size for c in cells.cells} == {32}
    assert any("--batch-size" in note for note in cells.notes)
    command = ("python", "train.py", "-b", "{batch_size}")
    own, cells = plan(script(*command), seen(), batch_size=(16, 64))
    assert own.batch_size == 16
    assert {c.batch_size for c in cells.cells} == {16, 64}


def test_an_axis_with_a_placeholder_is_not_put_in() -> None:
    assert "workers" in put_in_axes(script())
    assert "workers" not in put_in_axes(script("python", "t.py", "-j{workers}"))


@pytest.mark.parametrize(
    ("what", "axes", "why"),
    [
        (seen(iterable=True, shares_out=False), {"workers": 2}, "get_worker_info"),
        (seen(iterable=True, shares_out=None), {"workers": 4}, "get_worker_info"),
        (seen(unpicklable="a lambda in Rows.f"), {"workers": 1, "start_method": "spawn"}, "lambda"),
        (replace(seen(), main_guard=False), {"workers": 1, "start_method": "spawn"}, "__main__"),
        (seen(iterable=True, shares_out=True), {"workers": 2}, ""),
        (seen(iterable=True, shares_out=False), {"workers": 1}, ""),
        (seen(unpicklable="a lambda"), {"workers": 2, "start_method": "fork"}, ""),
        (seen(unpicklable="a lambda"), {"workers": 0, "start_method": None}, ""),
    ],
)
def test_what_a_loader_cannot_take_is_refused(
    what: ScriptSeen, axes: dict[str, Any], why: str
) -> None:
    own = as_written_cell(script(), what, {})
    cell = replace(own, **({"start_method": "fork"} | axes))
    assert why in refusal_of(cell, what, own)
    assert bool(refusal_of(cell, what, own)) == bool(why)


def test_without_a_loader_only_placeholders_vary() -> None:
    nothing = ScriptSeen(pid=1, clock="optimizer", devices=["cpu"])
    own, cells = plan(script(), nothing)
    assert cells.cells == (own,)
    _, cells = plan(script("python", "t.py", "{workers}"), nothing, workers=(0, 2))
    assert {c.workers for c in cells.cells} == {0, 2}


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (("python", "-u", "a/train.py", "--lr", "1"), "train.py"),
        (("python", "-m", "pkg.train"), "pkg.train"),
        (("torchrun", "--nproc-per-node", "2", "t.py"), "t.py"),
        (("yolo", "train"), "yolo"),
    ],
)
def test_a_script_is_called_by_its_file(command: tuple[str, ...], name: str) -> None:
    assert script_name(script(*command)) == name
