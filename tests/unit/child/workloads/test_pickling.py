"""What workers would receive, counted without a copy, and what cannot be sent."""

from __future__ import annotations

import multiprocessing
import threading
from multiprocessing import context

import numpy as np
import pytest
import torch

from ctrkit.child.workloads.pickling import pickled_part


class Rows:
    def __init__(self, **held):
        vars(self).update(held)


def test_plain_things_weigh_what_their_pickle_weighs():
    part = pickled_part("dataset", Rows(text="x" * 1000))
    assert part.kind == "Rows"
    assert part.error == ""
    assert 1000 < part.pickled_bytes < 1200


def test_arrays_are_counted_once_and_tensors_go_into_shared_memory():
    array, tensor = np.zeros(10_000), torch.zeros(1000)
    part = pickled_part("dataset", Rows(a=array, again=array, t=tensor, view=tensor[:10]))
    assert 80_000 < part.pickled_bytes < 80_500
    assert part.shared_bytes == 4000
    assert not tensor.is_shared()  # only weighed


def test_a_memory_map_goes_by_value(tmp_path):
    mapped = np.memmap(tmp_path / "x", dtype=np.int8, mode="w+", shape=(70_000,))
    part = pickled_part("dataset", Rows(m=mapped))
    assert part.memmap_bytes == 70_000
    assert part.pickled_bytes > 70_000


def test_arrays_of_objects_are_really_pickled():
    part = pickled_part("dataset", Rows(a=np.array([threading.Lock()], dtype=object)))
    assert part.error


def test_the_innermost_thing_that_cannot_be_pickled_is_named():
    inner = Rows(fine=1, hooks={"open": [0, threading.Lock()]})
    part = pickled_part("dataset", Rows(inner=inner))
    assert part.place == "dataset.inner.hooks['open'][1]"
    assert "lock" in part.error
    part = pickled_part("collate_fn", lambda rows: rows)
    assert part.place == "collate_fn"
    assert "lambda" in part.kind
    assert "lambda" in part.error


def test_locks_and_queues_of_multiprocessing_are_judged_as_a_spawn_would():
    spawn = multiprocessing.get_context("spawn")
    part = pickled_part("dataset", Rows(lock=spawn.Lock(), queue=spawn.SimpleQueue()))
    assert part.error == ""
    assert context.get_spawning_popen() is None  # nothing of it stays behind


def test_tensors_that_torch_refuses_or_that_lie_on_a_device():
    graph = torch.ones(2, requires_grad=True) * 2
    assert "requires_grad" in pickled_part("dataset", Rows(g=graph)).error
    part = pickled_part("dataset", Rows(t=torch.empty(2, device="meta")))
    assert part.device_tensors == ["meta"]


def test_any_exception_of_the_users_code_is_words():
    class Sulks:
        def __reduce__(self):
            raise ValueError("no,\nI will not")

    part = pickled_part("dataset", Sulks())
    assert part.error == "ValueError: no, I will not"


@pytest.mark.parametrize("value", [Rows, print, "text", 3])
def test_the_kind_is_a_name(value):
    assert pickled_part("dataset", value).kind
