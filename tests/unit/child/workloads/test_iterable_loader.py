"""Any iterable as an epoch's loader."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from ctrkit.child.workloads.iterable_loader import IterableLoader, as_epoch_loader
from ctrkit.child.workloads.returned import NotBatchesError


class Sampler:
    def __init__(self) -> None:
        self.epochs: list[int] = []

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)


class Sampled:
    def __init__(self) -> None:
        self.sampler = Sampler()

    def __iter__(self) -> Iterator[int]:
        return iter(range(5))


def test_the_sampler_is_told_the_epoch_and_batches_are_left_out() -> None:
    sampled = Sampled()
    loader = IterableLoader(sampled)
    loader.set_epoch(3, first_batch=2)
    assert list(loader) == [2, 3, 4]
    loader.set_epoch(4)
    assert list(loader) == [0, 1, 2, 3, 4]
    assert sampled.sampler.epochs == [3, 4]


def test_a_plain_loader_of_a_workload_is_wrapped_and_its_own_kind_is_not() -> None:
    sampled = Sampled()
    loader = as_epoch_loader(sampled)
    loader.set_epoch(2)
    assert list(loader) == [0, 1, 2, 3, 4]
    assert sampled.sampler.epochs == [2]
    assert as_epoch_loader(loader) is loader


def test_what_is_no_iterable_says_so() -> None:
    not_iterable: Any = 7
    with pytest.raises(NotBatchesError, match="make_loader returned an int, which is not iterable"):
        IterableLoader(not_iterable)


def test_a_closed_loader_lets_go_of_the_users() -> None:
    class Held:
        alive = 0

        def __init__(self) -> None:
            Held.alive += 1

        def __iter__(self) -> Iterator[int]:
            return iter(())

        def __del__(self) -> None:
            Held.alive -= 1

    def make() -> Iterable[int]:
        return Held()

    loader = IterableLoader(make())
    assert Held.alive == 1
    loader.close()
    assert Held.alive == 0


def test_every_batch_that_is_left_out_is_told() -> None:
    loader, told = IterableLoader(range(5)), []
    loader.on_skip = lambda: told.append("one")
    loader.set_epoch(1, first_batch=3)
    batches = iter(loader)
    assert told == ["one"] * 3  # before the first batch is asked for
    assert list(batches) == [3, 4]
