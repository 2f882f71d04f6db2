"""Rows of batches of any type."""

from __future__ import annotations

from collections import UserDict, namedtuple
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SequentialSampler

from ctrkit.child.training.batches import RowCounter
from ctrkit.child.workloads.iterable_loader import IterableLoader

ROWS = 150
Pair = namedtuple("Pair", "history label")


def ragged(rows: list[int]) -> list[torch.Tensor]:
    return [torch.zeros(1 + 7 * row % 31) for row in rows]


@dataclass
class Labelled:
    history: Any
    label: torch.Tensor


def flat(rows: list[int]) -> dict[str, torch.Tensor]:
    lengths = torch.tensor([0, *(len(one) for one in ragged(rows))])
    return {"values": torch.cat(ragged(rows)), "offsets": lengths.cumsum(0)}


def labels(rows: list[int]) -> torch.Tensor:
    return torch.tensor(rows) % 2


COLLATES = {
    "ragged": lambda rows: {"history": ragged(rows), "label": labels(rows)},
    "ragged alone": ragged,
    "flat with offsets": flat,
    "flat with offsets and label": lambda rows: {**flat(rows), "label": labels(rows)},
    "time-major": lambda rows: (torch.zeros(50, len(rows), 8), torch.zeros(50, len(rows))),
    "time-major alone": lambda rows: torch.zeros(50, len(rows), 8),
    "as wide as the batch": lambda rows: torch.zeros(len(rows), 64),
    "dataclass": lambda rows: Labelled(ragged(rows), labels(rows)),
    "named tuple": lambda rows: Pair(torch.zeros(50, len(rows)), labels(rows)),
    "object": lambda rows: SimpleNamespace(_store={"x": torch.zeros(9, 2), "y": labels(rows)}),
    "graphs": lambda rows: SimpleNamespace(x=torch.zeros(999, 2), num_graphs=len(rows)),
    "encoding": lambda rows: UserDict(input_ids=torch.zeros(len(rows), 12), n=3),
    "images in a list": lambda rows: ([torch.zeros(3, 8, 8) for _ in rows], labels(rows)),
    "images and targets": lambda rows: tuple(
        zip(*((torch.zeros(3, 8, 8), {"boxes": torch.zeros(row % 5, 4)}) for row in rows),
            strict=True)
    ),
    "not collated": lambda rows: [(torch.zeros(3, 8), row) for row in rows],
    "groups of fields": lambda rows: [[labels(rows), labels(rows)]] * 3,
    "packed": lambda rows: pack_sequence(ragged(rows), enforce_sorted=False),
    "nested": lambda rows: torch.nested.nested_tensor(
        ragged(rows), layout=torch.jagged
    ),
    "texts": lambda rows: {"text": [f"row {row}" for row in rows], "label": labels(rows)},
}  # fmt: skip


def counts(counter: RowCounter, batches: Any) -> list[int | None]:
    counter.begin_epoch()
    return [counter.count(batch) for batch in batches]


@pytest.mark.parametrize("name", COLLATES)
def test_a_dataloader_is_asked_what_it_samples(name: str) -> None:
    loader = DataLoader(range(ROWS), 64, collate_fn=COLLATES[name])  # type: ignore[arg-type]
    counter = RowCounter(IterableLoader(loader))
    assert counts(counter, loader) == [64, 64, 22]
    assert counts(counter, loader) == [64, 64, 22]  # another epoch
    again = DataLoader(
        range(ROWS),  # type: ignore[arg-type]
        batch_sampler=BatchSampler(SequentialSampler(range(ROWS)), 64, drop_last=True),
        collate_fn=COLLATES[name],
    )
    assert counts(RowCounter(again), again) == [64, 64]
    counter.begin_epoch(first_batch=2)
    assert counter.count(COLLATES[name](list(range(22)))) == 22


@pytest.mark.parametrize("name", sorted(COLLATES.keys() - {"flat with offsets", "ragged alone"}))
def test_without_one_the_batch_size_asked_for_is_looked_for(name: str) -> None:
    batches = [COLLATES[name](list(range(rows))) for rows in (64, 64, 22)]
    assert counts(RowCounter(iter(batches), 64), batches) == [64, 64, 22]


def test_what_collate_leaves_out_is_not_counted() -> None:
    loader = DataLoader(
        range(100), 10, collate_fn=lambda rows: torch.tensor([row for row in rows if row % 10])
    )  # type: ignore[arg-type]
    assert counts(RowCounter(loader), loader) == [9] * 10


def test_a_stream_ends_with_a_shorter_batch() -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter(range(70))

    loader = DataLoader(Stream(), 64, collate_fn=COLLATES["ragged"])
    assert counts(RowCounter(loader), loader) == [64, 6]


@pytest.mark.parametrize(
    ("batch", "rows"),
    [
        (torch.zeros(7, 3), 7),
        (np.zeros((5, 2)), 5),
        ({"scale": torch.tensor(2.0), "x": torch.zeros(4, 1)}, 4),
        ([{"names": ["a", "b"]}, (torch.zeros(6), 1)], 6),
        (["a", "b", "c"], 3),
        ([0.0] * 8, 8),
        ([], 0),
        ("a text", 1),
        (3.5, 1),
        (torch.tensor(1.0), 1),
        ((torch.zeros(50, 64), torch.zeros(64)), 64),
        (flat([1, 2, 3]) | {"label": torch.zeros(3)}, 3),
        ((torch.zeros(50), torch.zeros(64)), None),
        (object(), None),
        ({}, None),
    ],
)
def test_with_nobody_to_ask_the_commonest_first_dimension_counts(
    batch: Any, rows: int | None
) -> None:
    assert RowCounter().count(batch) == rows
