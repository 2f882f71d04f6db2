"""What `make_loader` returned: batches are accepted, anything else is explained in one line."""

from __future__ import annotations

import functools
import io
import itertools
from collections import namedtuple
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
)

from ctrkit.child.workloads.returned import (
    NotBatchesError,
    check_batch,
    checked_batches,
    is_iterator,
)

TABLE = TensorDataset(torch.arange(8.0))
LOADER: DataLoader[Any] = DataLoader(TABLE, 2)
Split = namedtuple("Split", "test train")


class Rows(Dataset[Any]):
    def __getitem__(self, index: int) -> int:
        return index


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(range(3))


class StreamOfBatches(Stream):
    """As WebDataset's loader is one: it holds the DataLoader that it iterates."""

    def __init__(self) -> None:
        self.pipeline = [LOADER]


class ByIndex:
    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> int:
        return index % 3


class Wrapped:
    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def __iter__(self) -> Any:
        return iter(self.loader)


class Holder:
    def __init__(self) -> None:
        self.valid, self.train_part = LOADER, [LOADER]


class Module:
    def train_dataloader(self) -> Any:
        return LOADER


async def later() -> Any:
    return LOADER


@pytest.mark.parametrize(
    ("made", "parts"),
    [
        (Rows(), ("a Dataset ('Rows'), not batches", "DataLoader(dataset, batch_size=")),
        (Subset(Rows(), [1]), ("a Dataset ('Subset')",)),
        (Stream(), ("a Dataset ('Stream'), which gives rows", "batch_size=None")),
        (ByIndex(), ("a ByIndex, which gives single items by index", "batch_size=None")),
        ((LOADER, LOADER), ("a tuple of 2 DataLoaders", "train with (its [0])")),
        ((Wrapped(LOADER), 10), ("a tuple of Wrapped with a DataLoader, int", "its [0]")),
        ([LOADER], ("a list of 1 DataLoader", "its [0]")),
        (Split(LOADER, LOADER), ("a Split of 2 DataLoaders", "its .train")),
        ((DataLoader(Stream()), 1), ("a tuple of DataLoader, int",)),
        (((LOADER, LOADER), (LOADER, LOADER)), ("2 parts, each a tuple with a DataLoader",)),
        ({LOADER}, ("a set of 1 DataLoader",)),
        ({"a": LOADER}.values(), ("a dict_values of 1 DataLoader",)),
        (BatchSampler(range(9), 3, False), ("a Sampler ('BatchSampler'), which gives indices",)),
        (torch.nn.Sequential(), ("a model ('Sequential')",)),
        (io.StringIO("1,2"), ("an open file ('StringIO')",)),
        ({"val": LOADER, "train": LOADER}, ("a dict of 2 DataLoaders", "its ['train']")),
        ((TABLE, TABLE), ("a tuple of 2 parts, each a Dataset (TensorDataset)", "its [0]")),
        ({"x": torch.zeros(3)}, ("a dict of 1 Tensor", "one batch at most")),
        ((torch.zeros(9, 2), torch.zeros(9)), ("a tuple of 2 Tensors", "whole columns")),
        ((torch.zeros(9, 2), torch.zeros(3, 2)), ("whole columns",)),
        (torch.zeros(9, 2), ("a Tensor of 9 x 2", "TensorDataset")),
        (np.zeros((4, 3)), ("a ndarray of 4 x 3",)),
        ("data/train.csv", ("the text 'data/train.csv'",)),
        (None, ("None", "return")),
        (DataLoader, ("the class DataLoader itself",)),
        (functools.partial(iter, []), ("the function partial itself",)),
        (lambda: LOADER, ("itself: call it",)),
        (7, ("an int, which is not iterable",)),
        (Holder(), ("not iterable but holds valid, train_part", "its `.train_part`")),
        (Module(), ("return its `train_dataloader()`",)),
        (later(), ("without `async`",)),
    ],
)  # fmt: skip
def test_what_is_no_batches_is_told_in_one_line(made: Any, parts: tuple[str, ...]) -> None:
    with pytest.raises(NotBatchesError) as caught:
        checked_batches(made, "own.py:make_loader")
    message = str(caught.value)
    assert message.startswith("own.py:make_loader returned ")
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    "made",
    [
        LOADER,
        DataLoader(Stream()),
        Wrapped(DataLoader(Stream())),
        StreamOfBatches(),
        [torch.zeros(4), torch.zeros(2)],
        torch.arange(10).split(4),
        [1.0, 2.0],
        range(5),
        itertools.count(),
        zip(LOADER, LOADER, strict=True),
    ],
    ids=lambda made: type(made).__name__,
)
def test_batches_are_taken(made: Any) -> None:
    assert checked_batches(made) is made


def test_what_can_be_iterated_once_only() -> None:
    assert is_iterator(iter([1]))
    assert is_iterator(number for number in [1])
    assert not is_iterator([1])

    class BeginsAnew:
        def __iter__(self):
            self.left = 3
            return self

        def __next__(self):
            self.left -= 1
            if self.left < 0:
                raise StopIteration
            return self.left

    class GoesOn(BeginsAnew):
        def __iter__(self):
            return self

    assert not is_iterator(BeginsAnew())
    assert is_iterator(GoesOn())
    assert not is_iterator(LOADER)


def test_loaders_that_an_iterator_gives_are_no_batches() -> None:
    check_batch({"x": torch.zeros(3)})
    with pytest.raises(NotBatchesError, match="first batch is a DataLoader: return one loader"):
        check_batch(next(iter([LOADER])))
