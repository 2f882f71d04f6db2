"""Cells, phases, and how they are read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrkit.core.config import ChildSpec, WorkloadSpec, decode, encode, make_cell
from ctrkit.core.environment import physical_cores
from ctrkit.core.errors import UsageError


def test_processes_share_the_cores_out() -> None:
    assert make_cell(nproc=2).threads == max(1, physical_cores() // 2)
    assert make_cell(nproc=2, threads=3).threads == 3
    assert make_cell(nproc=10_000).threads == 1


def test_defaults_of_a_cell() -> None:
    cell = make_cell()
    assert (cell.loader, cell.workers, cell.start_method, cell.prefetch) == (
        "thread",
        0,
        None,
        None,
    )
    assert cell.threads == physical_cores()
    with_workers = make_cell(loader="batches", workers=2)
    assert (with_workers.start_method, with_workers.prefetch) == ("spawn", 2)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"device": "tpu"}, "unknown device 'tpu'; known are cpu, mps, cuda"),
        ({"workers": -1}, "workers is -1, but must be at least 0"),
        ({"workers": "two"}, "workers"),
        ({"start_method": "vfork"}, "unknown start_method"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"wrokers": 1}, "unknown key 'wrokers'"),
    ],
)
def test_bad_cells(axes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_cell(**axes)


@given(
    workers=st.integers(0, 8),
    prefetch=st.integers(1, 4),
    batch_size=st.integers(1, 8192),
    method=st.sampled_from(["fork", "spawn", "forkserver"]),
    pin=st.booleans(),
    persistent=st.booleans(),
)
def test_a_cell_survives_json_and_its_id_tells_cells_apart(
    workers: int, prefetch: int, batch_size: int, method: str, pin: bool, persistent: bool
) -> None:
    axes = {"workers": workers, "batch_size": batch_size, "pin": pin, "persistent": persistent}
    if workers:
        axes |= {"prefetch": prefetch, "start_method": method}
    cell = make_cell(**axes)
    spec = ChildSpec(kind="full", folder="x", workload=WorkloadSpec(), cell=cell)
    assert decode(ChildSpec, encode(spec), "spec") == spec
    other = make_cell(**{**axes, "batch_size": batch_size + 1})
    assert other.cell_id != cell.cell_id


def test_numerics_show_in_the_name_of_a_cell_only_where_they_are_not_the_default():
    plain = make_cell(threads=2)
    assert plain.numerics == {}
    assert plain.cell_id == "cpu-thread-w0-t2-b2048"
    other = make_cell(threads=2, optimizer="sparse-adam", precision="bf16", compile=True)
    assert other.numerics == {"optimizer": "sparse-adam", "precision": "bf16", "compile": True}
    assert other.cell_id == "cpu-thread-w0-t2-b2048-sparse-adam-bf16-compile"


@pytest.mark.parametrize(("axis", "value"), [("optimizer", "sgd"), ("precision", "int8")])
def test_unknown_numerics_are_refused(axis, value):
    with pytest.raises(UsageError, match=f"unknown {axis} '{value}'"):
        make_cell(**{axis: value})
