"""Examining a workload's loader: what is found, and errors that must not escape."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from ctrkit.child.workloads.custom import CustomWorkload
from ctrkit.child.workloads.examine import examine_workload, known_needs
from ctrkit.child.workloads.iterable_loader import IterableLoader
from ctrkit.core.config import ChildSpec, WorkloadSpec, make_cell
from ctrkit.ctr.data.synthetic import generate_store
from ctrkit.ctr.phase import Phase
from ctrkit.ctr.workload import MdafWorkload
from ctrkit.probe.hazards.facts import HazardFacts
from ctrkit.probe.hazards.rules import hazards_of

SPEC = ChildSpec(kind="examine", folder="", workload=WorkloadSpec(), cell=make_cell())


class Rows(Dataset[Any]):
    """Any read of it fails the test: a look takes no batch."""

    def __init__(self, **held):
        vars(self).update(held)

    def __len__(self):
        return 4

    def __getitem__(self, index):
        raise AssertionError("a row was read")


def start(worker):
    raise AssertionError("a worker was started")


def rules_on(examination, cell, name):
    facts = HazardFacts(examination=examination)
    return [hazard for hazard in hazards_of(cell, facts) if hazard.name == name]


def look(make_loader):
    return examine_workload(SPEC, CustomWorkload(make_loader, "own"))


def test_the_parts_are_weighed_and_nothing_is_read_or_started():
    def make_loader(*, workers, start_method, batch_size):
        assert (workers, start_method) == (0, None)
        return DataLoader(Rows(x=np.zeros(5000)), batch_size, shuffle=True, worker_init_fn=start)

    found = look(make_loader)
    assert found.problem == ""
    assert found.loader == "DataLoader"
    assert [part.name for part in found.parts] == ["dataset", "collate_fn", "worker_init_fn"]
    assert found.parts[0].pickled_bytes > 40_000
    assert found.shuffles
    assert found.needs.row_bytes is None
    assert found.needs.worker_bytes is not None
    assert found.needs.worker_bytes > 10_000_000  # an interpreter with torch


def test_a_part_that_cannot_be_pickled_is_named():
    found = look(lambda **axes: DataLoader(Rows(transform=lambda x: x), collate_fn=lambda x: x))
    failed = [(part.name, part.place) for part in found.parts if part.error]
    assert failed == [("dataset", "dataset.transform"), ("collate_fn", "collate_fn")]


def test_a_tensor_data_set_says_what_a_row_weighs():
    data = TensorDataset(torch.zeros(10, 3), torch.zeros(10, dtype=torch.int64))
    found = look(lambda **axes: DataLoader(data, 2))
    assert (found.needs.row_bytes, found.needs.tensors_per_batch) == (3 * 4 + 8, 2)
    assert found.parts[0].shared_bytes == 10 * 3 * 4 + 10 * 8


@pytest.mark.parametrize("error", [ValueError("no such\nbucket"), SystemExit(3)])
def test_a_loader_that_cannot_be_made_is_a_finding(error):
    def make_loader(**axes):
        raise error

    found = look(make_loader)
    assert type(error).__name__ in found.problem
    assert "test_examine.py, line" in found.problem
    assert "\n" not in found.problem
    assert found.parts == []


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_a_loader_that_needs_workers_is_made_with_those_asked_for():
    def make_loader(*, workers, prefetch):
        return DataLoader(Rows(), 2, num_workers=workers, prefetch_factor=prefetch or 4)

    cell = make_cell(workers=3, prefetch=5)
    found = examine_workload(replace(SPEC, cell=cell), CustomWorkload(make_loader, "own"))
    assert (found.problem, found.loader) == ("", "DataLoader")
    assert found.needs_workers.startswith("making the loader without workers raised ValueError")
    assert found.batches == 2
    (warning,) = rules_on(found, make_cell(workers=0), "not without workers")
    assert "prefetch_factor" in warning.advice
    assert rules_on(found, cell, "not without workers") == []


def test_a_loader_that_cannot_be_made_either_way_says_so_of_what_was_asked():
    def make_loader(*, workers):
        raise ValueError(f"{workers} is wrong")

    cell = make_cell(workers=3)
    found = examine_workload(replace(SPEC, cell=cell), CustomWorkload(make_loader, "own"))
    assert "making the loader with 3 workers raised ValueError: 3 is wrong" in found.problem


@pytest.mark.parametrize("kind", [tuple, dict])
def test_the_loader_in_a_tuple_or_dict_is_looked_at_and_refused(kind):
    loaders = [DataLoader(Rows(transform=lambda x: x), 2), DataLoader(Rows())]
    made = dict(zip(("train", "test"), loaders, strict=True)) if kind is dict else tuple(loaders)
    found = look(lambda *, workers: made)
    assert found.is_no_loader
    assert "return one alone" in found.problem
    assert [part.place for part in found.parts if part.error] == ["dataset.transform"]
    (refusal,) = rules_on(found, make_cell(), "make_loader returns no batches")
    assert refusal.refuses
    assert rules_on(found, make_cell(), "loader not examined") == []


def test_more_workers_than_batches_are_warned_of():
    found = look(lambda *, workers, batch_size: DataLoader(Rows(), 2))
    found = replace(found, batches=10, batch_size=64)
    (warning,) = rules_on(found, make_cell(workers=64, batch_size=64), "more workers than batches")
    assert "54 of 64 workers make none" in warning.text
    assert rules_on(found, make_cell(workers=10, batch_size=64), "more workers than batches") == []
    (halved,) = rules_on(found, make_cell(workers=8, batch_size=128), "more workers than batches")
    assert "3 of 8" in halved.text


def test_kept_workers_that_are_not_told_the_epoch_are_warned_of():
    class Told(Rows):
        def set_epoch(self, epoch):
            raise AssertionError("a look tells nothing")

    name = "epoch not told to kept workers"
    found = look(lambda *, workers: DataLoader(Told(), 2))
    kept = make_cell(workers=2, persistent=True)
    assert "(Told)" in rules_on(found, kept, name)[0].text
    assert rules_on(found, make_cell(workers=2), name) == []
    assert rules_on(replace(found, persistent=True), make_cell(workers=2), name) != []
    assert rules_on(look(lambda *, workers: DataLoader(Rows(), 2)), kept, name) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="it forks")
def test_a_worker_weighs_what_it_holds_although_the_module_has_forked(tmp_path):
    code = (
        "import os, signal, sys\n"
        "import torch\n"
        "from ctrkit.child.workloads.examine import _private_bytes\n"
        "held = bytearray(os.urandom(1000)) * 200_000\n"
        "before = _private_bytes()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    signal.pause()\n"
        "print(before, _private_bytes())\n"
        "os.kill(child, signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    before, after = map(int, done.stdout.split())
    assert before > 200_000_000
    assert after > 200_000_000


def test_a_loader_that_is_no_dataloader_has_no_parts():
    found = look(lambda **axes: [1, 2, 3])
    assert (found.loader, found.parts, found.problem) == ("list", [], "")


def test_a_dataloader_held_in_an_attribute_is_found_and_the_loader_closed():
    closed = []

    class Holder(IterableLoader):
        def __init__(self):
            self.inner = Rows(loader=DataLoader(Rows()))

        def close(self):
            closed.append(True)

    class Own(CustomWorkload):
        def train_loader(self, cell):
            return Holder()

    found = examine_workload(SPEC, Own(lambda: [], "own"))
    assert [part.name for part in found.parts] == ["dataset", "collate_fn"]
    assert closed == [True]


def test_a_default_device_that_the_loader_sets_is_seen():
    def make_loader(**axes):
        torch.set_default_device("meta")
        return DataLoader(Rows(), shuffle=True)

    try:
        found = look(make_loader)
    finally:
        torch.set_default_device(None)
    assert (found.default_device, found.generator_device) == ("meta", "cpu")


def test_libraries_with_threads_are_seen_where_they_are_loaded(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", sys)
    assert "tokenizers" in look(lambda **axes: [1]).threaded_libraries


def test_what_mdaf_says_of_a_row_is_what_a_batch_weighs(tmp_path):
    generate_store(tmp_path / "store", rows=300, users=20, items=30, seed=1)
    workload = MdafWorkload(tmp_path / "store", Phase(batch_size=64, history_length=6))
    needs = known_needs(workload)
    loader = workload.train_loader(make_cell(loader="batches", batch_size=64))
    batch = next(iter(loader))
    loader.close()
    assert needs.tensors_per_batch == len(batch)
    assert needs.row_bytes == sum(tensor.nbytes for tensor in batch.values()) / 64
    found = examine_workload(SPEC, workload)
    assert found.needs.row_bytes == needs.row_bytes
    assert found.parts[0].name == "dataset"
    assert found.parts[0].pickled_bytes < 1000  # a store goes as its path
    assert not any(part.error for part in found.parts)
