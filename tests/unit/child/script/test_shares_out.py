"""Reads from an iterable data set's code, without running it, whether it divides itself."""

from __future__ import annotations

import types
from typing import Any

import pytest
from torch.utils.data import IterableDataset, get_worker_info

from ctrkit.child.script.seen_loaders import shares_out

helpers: Any = types.ModuleType("helpers")


def _place() -> Any:
    return get_worker_info()


helpers.place = _place


def split(rows: Any) -> Any:
    info = helpers.place()
    return rows if info is None else list(rows)[info.id :: info.num_workers]


def shuffle(rows: Any) -> Any:
    return sorted(rows, key=lambda row: -row)


class Stage:
    """A function of a pipeline, with its arguments."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def __call__(self, rows: Any) -> Any:
        return self.function(rows)


class Pipeline(IterableDataset):  # type: ignore[type-arg]
    """As webdataset's: what it does lies in a list of stages."""

    def __init__(self, *stages: Any) -> None:
        self.stages = list(stages)

    def __iter__(self) -> Any:
        rows: Any = range(8)
        for stage in self.stages:
            rows = stage(rows)
        return iter(rows)


@pytest.mark.parametrize(
    ("stages", "shares"),
    [
        ((Stage(shuffle), Stage(split)), True),
        ((shuffle, split), True),
        ((Stage(shuffle),), False),
        ((shuffle, Stage(shuffle), sorted), False),
        ((), False),
    ],
)
def test_the_stages_of_a_pipeline_are_looked_at(stages: tuple[Any, ...], shares: bool) -> None:
    assert shares_out(Pipeline(*stages)) is shares
