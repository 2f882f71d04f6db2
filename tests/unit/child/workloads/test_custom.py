"""A user's make_loader as a workload."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from typing import Any

import pytest

from ctrkit.child.workloads.custom import CustomWorkload, axes_of_signature
from ctrkit.child.workloads.returned import NotBatchesError
from ctrkit.core.config import CELL_AXES, make_cell


def test_it_gets_the_axes_that_its_signature_names() -> None:
    seen: dict[str, Any] = {}

    def make_loader(*, workers: int, batch_size: int, note: str = "own") -> list[int]:
        seen.update(workers=workers, batch_size=batch_size, note=note)
        return [1, 2, 3]

    workload = CustomWorkload(make_loader, "mine")
    assert workload.axes == ("workers", "batch_size")
    loader = workload.train_loader(make_cell(loader="custom", workers=2, batch_size=64))
    assert seen == {"workers": 2, "batch_size": 64, "note": "own"}
    assert list(loader) == [1, 2, 3]
    assert workload.sizes(64).epochs is None
    assert CustomWorkload(make_loader, "mine", epochs=3).sizes(64).epochs == 3


def test_its_own_defaults_stand_where_nobody_names_an_axis() -> None:
    seen: dict[str, Any] = {}

    def make_loader(
        *, workers: int = 2, start_method: Any = None, batch_size: int = 50, prefetch: Any = None,
        persistent: bool = False, device: Any = "cuda:1", **other: Any,
    ) -> list[int]:  # fmt: skip
        seen.clear()
        seen.update(
            workers=workers, start_method=start_method, batch_size=batch_size, prefetch=prefetch,
            persistent=persistent, device=device,
        )  # fmt: skip
        return [1]

    workload = CustomWorkload(make_loader, "mine")
    method = multiprocessing.get_start_method()
    own = {
        "workers": 2, "start_method": method, "batch_size": 50, "prefetch": 2, "persistent": False,
        "device": "cuda",
    }  # fmt: skip
    assert workload.own_defaults == own
    assert workload.default_batch_size() == 50
    raw = {
        "workers": 2, "start_method": None, "batch_size": 50, "prefetch": None,
        "persistent": False, "device": "cuda:1",
    }  # fmt: skip
    workload.train_loader(make_cell(**own))
    assert seen == raw
    workload.train_loader(make_cell(**own | {"workers": 3, "prefetch": 4}))
    assert seen == raw | {"workers": 3, "prefetch": 4}
    workload.train_loader(make_cell(**own | {"workers": 0, "prefetch": None, "start_method": None}))
    assert seen == raw | {"workers": 0}


def test_a_default_that_is_no_value_of_a_cell_is_left_alone() -> None:
    def make_loader(*, workers: Any = "4", batch_size: Any = None, threads: int = 0) -> list[int]:
        return [1]

    workload = CustomWorkload(make_loader, "mine")
    assert (workload.axes, workload.own_defaults) == ((), {})


def test_keywords_take_every_axis() -> None:
    def make_loader(**axes: Any) -> list[int]:
        return []

    assert axes_of_signature(make_loader) == CELL_AXES


def test_a_generator_is_made_anew_for_each_epoch() -> None:
    made = []

    def make_loader(*, batch_size: int) -> Iterator[int]:
        made.append(batch_size)
        return (number for number in range(3))

    loader = CustomWorkload(make_loader, "mine").train_loader(make_cell(batch_size=8))
    loader.set_epoch(1)
    assert list(loader) == [0, 1, 2]
    loader.set_epoch(2, first_batch=1)
    assert list(loader) == [1, 2]
    assert made == [8, 8]


def test_a_generator_that_was_made_before_is_not_taken_for_a_second_epoch() -> None:
    numbers = zip(range(3), range(3), strict=True)
    loader = CustomWorkload(lambda *, workers: numbers, "own.py:make").train_loader(make_cell())
    loader.set_epoch(1)
    assert len(list(loader)) == 3
    with pytest.raises(NotBatchesError, match="a zip that was made before, .* iterated once only"):
        loader.set_epoch(2)
