"""Cells, phases, and how they are read."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrkit.core.config import (
    ChildSpec,
    Phase,
    WorkloadSpec,
    decode,
    encode,
    load_phase,
    make_cell,
    parse_condition,
    phase_names,
)
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


def test_phases_are_those_of_the_design() -> None:
    assert phase_names() == ["phase1", "phase3", "phase3-revised"]
    assert load_phase("phase3") == Phase(
        name="phase3", model="mamba", epochs=15, batch_size=2048, seed=42, patience=5, dropout=0.3,
        weight_decay=5e-5, label_smoothing=0.1, grad_clip=1.0, lr=3e-4, schedule="warmup-cosine",
        warmup_epochs=2, history_length=50,
    )  # fmt: skip
    assert load_phase("phase1").schedule == "constant"
    assert load_phase("phase3-revised").dropout == 0.25


def test_overrides() -> None:
    phase = load_phase("phase3", {"model": "bst", "lr": "1e-3", "epochs": "2"})
    assert (phase.model, phase.lr, phase.epochs) == ("bst", 1e-3, 2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("epochs = 'many'", "epochs"),
        ("epochz = 3", "unknown key 'epochz'"),
        ("epochs = ", "not valid TOML"),
        ("epochs = 0", "epochs is 0"),
        ("model = 'gru'", "model is 'gru'; known are mamba, bst"),
        ("dropout = 1.5", "dropout is 1.5"),
        ("shuffle = 'none'", "shuffle is 'none'; known are full, block"),
        ("block_rows = 0", "block_rows is 0"),
    ],
)
def test_bad_phase_files(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(content)
    with pytest.raises(UsageError, match=message) as raised:
        load_phase(str(path))
    assert "mine.toml" in str(raised.value)


def test_unknown_phase() -> None:
    with pytest.raises(UsageError, match="neither a phase"):
        load_phase("phase9")


def test_criteria_of_a_phase_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('epochs = 3\n[criteria.good]\nbest_val_auc = ">= 0.6"\n')
    phase = load_phase(str(file))
    assert phase.criteria == {"good": {"best_val_auc": ">= 0.6"}}
    assert decode(Phase, encode(phase), "x") == phase
    file.write_text('[criteria.good]\nbest_val_auc = "high"\n')
    with pytest.raises(UsageError, match="criteria.good.best_val_auc: 'high' is no condition"):
        load_phase(str(file))
    file.write_text("[criteria]\ngood = 3\n")
    with pytest.raises(UsageError, match="Expected `object`, got `int`"):
        load_phase(str(file))


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        (">= 0.578", [0.578, 1.0], [0.577]),
        ("< 0.2", [0.19, -3], [0.2]),
        ("3-6", [3, 4.5, 6], [2, 7]),
        ("0.05 .. 0.12", [0.05, 0.12], [0.049, 0.121]),
        ("-1--0.5", [-1, -0.5], [0]),
        ("5", [5], [4.9]),
        ("= 1e-3", [0.001], [0.002]),
    ],
)
def test_conditions(text: str, inside: list[float], outside: list[float]) -> None:
    condition = parse_condition(text)
    assert all(condition.holds(value) for value in inside)
    assert not any(condition.holds(value) for value in outside)


@pytest.mark.parametrize("text", ["", "high", ">= ", "6-3", "1-2-3", "=> 4", "nan"])
def test_bad_conditions(text: str) -> None:
    with pytest.raises(UsageError):
        parse_condition(text)


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
