"""The table of axes: options, checks, ids and defaults are made from it."""

from __future__ import annotations

import dataclasses

import pytest

from ctrkit.core.axes import Surroundings
from ctrkit.core.cell import AXES, NUMERICS, WITHOUT_ANY_WORKERS, Cell, make_cell
from ctrkit.core.errors import UsageError
from ctrkit.core.values import encode
from ctrkit.report.words import cell_words

AROUND = Surroundings(
    devices=("cpu", "mps"), loaders=("rows",), batch_size=64, cores=4, usable_cores=4.0, all_cores=4
)


def test_every_axis_of_a_cell_says_what_it_is() -> None:
    assert (*AXES, "unheeded") == tuple(f.name for f in dataclasses.fields(Cell))
    for row in AXES.values():
        assert row.help
        assert row.kind is not str or row.choices
        assert row.problem(row.default, row.name) == ""


def test_every_axis_is_told_apart_by_the_id_of_its_cell() -> None:
    base = {"loader": "batches", "workers": 2, "threads": 2}
    ids = {make_cell(**base).cell_id}
    for row in AXES.values():
        others = {str: row.choices, bool: (True, False), int: (7,)}[row.kind]
        for value in others:
            cell = make_cell(**base | {row.name: value})
            if cell != make_cell(**base):
                assert cell.cell_id not in ids, (row.name, value)
                ids.add(cell.cell_id)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("workers", "3", 3),
        ("device", "auto", "auto"),
        ("pin", "Yes", True),
        ("compile", "off", False),
    ],
)
def test_options_become_values(name: str, text: str, value: object) -> None:
    assert AXES[name].read(text) == value


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("nproc", "0", "--nproc: is 0, but must be at least 1"),
        ("loader", "custom", "--loader: unknown 'custom'; known are rows"),
        ("start_method", "", "--start-method: unknown ''"),
        ("compile", "maybe", "--compile: 'maybe' is neither true nor false"),
    ],
)
def test_what_is_no_value_is_refused(name: str, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        AXES[name].read(text)


def test_what_a_probe_tries_and_what_only_workers_have() -> None:
    assert AXES["device"].tried(AROUND) == ("cpu", "mps")
    assert AXES["workers"].tried(AROUND) == (0, 2, 3)
    assert AXES["start_method"].tried(AROUND) == ("spawn",)
    assert AXES["precision"].tried(AROUND) == ("float32",)
    assert WITHOUT_ANY_WORKERS == {"start_method": None, "prefetch": None, "persistent": False}
    assert NUMERICS == {"optimizer": "adam", "precision": "float32", "compile": False}


def test_an_axis_names_the_devices_that_it_needs() -> None:
    assert AXES["pin"].device_problem(True, "cpu") == (
        "pinned memory speeds up copies to CUDA only, not to cpu"
    )
    assert (
        AXES["pin"].device_problem(False, "cpu") == AXES["pin"].device_problem(True, "cuda") == ""
    )
    assert AXES["nproc"].device_problem(2, "mps") == "device mps has one process"


def test_the_threads_of_two_kinds_of_cores_are_the_fast_ones_first_then_all() -> None:
    assert AXES["threads"].tried(AROUND) == (4,)
    apple = dataclasses.replace(AROUND, cores=6, all_cores=12)
    assert AXES["threads"].tried(apple) == (6, 12)


def test_what_the_loader_does_not_heed_is_in_the_id_but_in_no_words() -> None:
    plain = make_cell(loader="custom", batch_size=2048, threads=2)
    told = dataclasses.replace(plain, unheeded=["workers", "batch_size"])
    assert told == plain
    assert told.cell_id == plain.cell_id == plain.name == "cpu-custom-w0-t2-b2048"
    assert told.name == "cpu-custom-t2"
    assert cell_words(plain) == "cpu, own loader, no workers, 2 threads, batch 2,048"
    assert cell_words(told) == "cpu, own loader, 2 threads"
    assert make_cell(**encode(told)).unheeded == told.unheeded
