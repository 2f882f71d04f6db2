"""Finding the parts of a loader, and telling each one the epoch."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch.utils.data import BatchSampler, ConcatDataset, DataLoader, Dataset, Sampler, Subset

from ctrkit.child.workloads.loader_parts import (
    find_dataloader,
    tell_epoch,
    untold_data_set,
)


class Told:
    def __init__(self) -> None:
        self.epochs: list[int] = []

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)


class Rows(Told, Dataset[Any]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        return index


class Order(Told, Sampler[int]):
    def __iter__(self) -> Any:
        return iter(range(4))

    def __len__(self) -> int:
        return 4


class Batches(Told, BatchSampler):
    def __init__(self, sampler: Any) -> None:
        BatchSampler.__init__(self, sampler, 2, False)
        Told.__init__(self)


class Handing(Told):
    """A wrapper that hands the epoch on to one part."""

    def __init__(self, loader: Any) -> None:
        super().__init__()
        self._loader = loader

    def set_epoch(self, epoch: int) -> None:
        super().set_epoch(epoch)
        self._loader.sampler.set_epoch(epoch)


class Slotted:
    __slots__ = ("loader",)


def test_each_part_is_told_once() -> None:
    rows, order = Rows(), Order()
    batches = Batches(order)
    nested = ConcatDataset([Subset(rows, [0, 1]), Subset(rows, [2, 3])])
    loader = DataLoader(nested, batch_sampler=batches)
    tell_epoch({"train": [SimpleNamespace(inner=loader)]}, 3)
    assert [part.epochs for part in (rows, order, batches)] == [[3], [3], [3]]
    tell_epoch(loader, 4)
    assert [part.epochs for part in (rows, order, batches)] == [[3, 4]] * 3
    assert "set_epoch" not in vars(rows) | vars(order)  # nothing of the telling stays


def test_whom_a_wrapper_tells_is_not_told_again() -> None:
    rows, order = Rows(), Order()
    wrapper = Handing(DataLoader(rows, 2, sampler=order))
    tell_epoch(wrapper, 2)
    assert (wrapper.epochs, order.epochs, rows.epochs) == ([2], [2], [2])


def test_a_data_set_in_kept_workers_is_not_told() -> None:
    def made(rows: Any, workers: int, kept: bool) -> DataLoader[Any]:
        return DataLoader(rows, 2, num_workers=workers, persistent_workers=kept)

    nested = Subset(Rows(), [0])
    assert untold_data_set([made(nested, 1, True)]) == "Rows"
    assert untold_data_set(made(nested, 1, False)) is None
    assert untold_data_set(made(nested, 0, False)) is None
    assert untold_data_set(made([1, 2], 1, True)) is None
    assert untold_data_set(range(3)) is None


class HandsOn:
    """As wrappers do that look like what they wrap."""

    def __init__(self, loader: Any) -> None:
        self.wrapped = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["wrapped"], name)


def test_a_wrapper_that_hands_attributes_on_tells_nobody_twice() -> None:
    rows = Rows()
    tell_epoch(HandsOn(HandsOn(rows)), 5)
    assert rows.epochs == [5]


def test_a_loader_without_anybody_to_tell_is_left_alone() -> None:
    tell_epoch(range(3), 1)
    tell_epoch(torch.zeros(3), 1)
    ring: list[Any] = []
    ring.append(ring)
    tell_epoch(ring, 1)


def test_a_dataloader_is_found_in_what_holds_it() -> None:
    loader = DataLoader(Rows(), 2)
    slotted = Slotted()
    slotted.loader = loader
    holders = [loader, (1, loader), {"a": {"b": loader}}, SimpleNamespace(parts=[loader]), slotted]
    assert all(find_dataloader(held) is loader for held in holders)
    assert find_dataloader([Rows(), "text", None]) is None
