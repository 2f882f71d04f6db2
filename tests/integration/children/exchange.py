"""A rank that sums a small model's gradients in each way, and compares with one process.

Started as two processes with the environment of torch's launcher; prints what it found as JSON.
"""

from __future__ import annotations

import json
import os
from typing import Any

import torch
from torch import nn

from ctrkit.child.training.distributed import ALONE, SummedModel, checksum, joined
from ctrkit.child.training.embedding_tables import EmbeddingTable
from ctrkit.child.training.rendezvous import find_ranks
from ctrkit.core.errors import UsageError

ROWS, SIZE, WIDTH = 7, 50, 4  # 4 rows and 3


class Model(nn.Module):
    """Two tables, one of which is looked up twice, and a dense layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.once, self.twice = (
            EmbeddingTable(SIZE, WIDTH, padding_idx=0),
            EmbeddingTable(SIZE, WIDTH),
        )
        self.head = nn.Linear(2 * WIDTH, 1)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        twice = self.twice(ids[:, 1]) + self.twice(ids[:, 2])
        found: torch.Tensor = self.head(torch.cat([self.once(ids[:, 0]), twice], 1)).squeeze(1)
        return found


class Unknowing(EmbeddingTable):
    """As on an accelerator: the table does not know which rows were touched."""

    def touched(self) -> None:
        return None


def gradients(ranks: Any, ids: torch.Tensor, way: str) -> list[torch.Tensor]:
    model = Model()
    summed = SummedModel(model, ranks)
    if ranks.count > 1:
        summed.tables.sparse = {"sparse": lambda *_: True, "dense": lambda *_: False}[
            way.removeprefix("unknowing ")
        ]
    if way.startswith("unknowing"):
        for table in (model.once, model.twice):
            table.__class__ = Unknowing
    for part in ids.chunk(2):  # the second step must not find what the first has left
        model.zero_grad(set_to_none=True)
        mine = part.tensor_split(ranks.count)[ranks.rank]
        loss = summed.forward(mine).square().sum() / len(part)
        torch.autograd.backward(loss)
        summed.reduce()
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def compare() -> dict[str, Any]:
    found: dict[str, Any] = {}
    with joined("cpu", None, find_ranks({"hello": 1})) as ranks:
        ids = torch.randint(SIZE, (2 * ROWS, 3), generator=torch.Generator().manual_seed(5))
        expected = gradients(ALONE, ids, "alone")
        for way in ("sparse", "dense", "unknowing sparse", "unknowing dense"):
            got = gradients(ranks, ids, way)
            found[way] = max(float((a - b).abs().max()) for a, b in zip(got, expected, strict=True))
            bits = nn.ParameterList(got)
            ranks.check_equal(f"gradient, {way},", checksum(bits))
        found["sum"] = ranks.sum(ranks.rank + 1, True)
        found["gathered"] = ranks.gather(ranks.rank)
        found["shared"] = ranks.share(f"of rank {ranks.rank}")
        try:
            ranks.check_equal("data", f"d{ranks.rank}")
        except UsageError as error:
            found["refused"] = str(error)
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(compare()), flush=True)
    # the rank that serves torch's store is sometimes aborted by it while the interpreter ends
    # ("terminate called without an active exception", once in 32 runs); ctrkit's ranks serve none
    os._exit(0)
