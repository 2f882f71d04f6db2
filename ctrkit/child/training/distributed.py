"""Ranks: processes that train one model together, each on its share of every global batch.

Gradients are summed, never averaged: each rank weights its loss by its share of the batch's rows,
so that N ranks compute what one process would. All ranks agree on everything that decides the loop
(rows, stop requests, metrics), so every rank makes the same steps and none waits for a step that
never comes.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ctrkit.child.training.embedding_tables import EmbeddingTable
from ctrkit.child.training.rendezvous import RankGroup
from ctrkit.core.errors import UsageError
from ctrkit.core.progress import RankWriter, WorkerStage

T = TypeVar("T")

#: A collective that takes longer fails. A supervisor finds a silent rank long before that.
COLLECTIVE_S = 1800.0


@dataclass(frozen=True)
class Ranks:
    """This process as one of several ranks. A process alone (`count` 1) communicates nothing."""

    rank: int = 0
    count: int = 1
    writer: RankWriter | None = None

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Within this context the rank waits for the others, and the supervisor can see that."""
        self.note(WorkerStage.IDLE)
        yield
        self.note(WorkerStage.FETCHING)

    def note(self, stage: WorkerStage) -> None:
        """Tell the supervisor whether this rank waits for others (`IDLE`) or others for it."""
        if self.writer is not None:
            self.writer.enter(stage)

    def sum(self, *numbers: int) -> tuple[int, ...]:
        """The sums over all ranks."""
        if self.count == 1:
            return numbers
        total = torch.tensor(numbers, dtype=torch.int64)
        with self.waiting():
            dist.all_reduce(total)
        return tuple(total.tolist())

    def gather(self, value: T) -> list[T] | None:
        """Every rank's value, in rank order, on rank 0; None on the others."""
        if self.count == 1:
            return [value]
        found: list[Any] | None = [None] * self.count if self.rank == 0 else None
        with self.waiting():
            dist.gather_object(value, found)
        return found

    def share(self, value: T) -> T:
        """Rank 0's value, on every rank."""
        if self.count == 1:
            return value
        box = [value]
        with self.waiting():
            dist.broadcast_object_list(box)
        return box[0]

    def check_equal(self, name: str, value: object) -> None:
        """Check that every rank has the same value.

        Raises:
            UsageError: on every rank; it names the first rank with another value.
        """
        values = self.gather(value)
        different = ""
        if values is not None:
            different = next(
                (
                    f"the {name} of rank {rank} is {other}, but that of rank 0 is {value}; all "
                    "machines need the same data, run folder and versions"
                    for rank, other in enumerate(values)
                    if other != value
                ),
                "",
            )
        if different := self.share(different):
            raise UsageError(different)


ALONE = Ranks()
_joined = ALONE


def current_ranks() -> Ranks:
    """The ranks that this process has joined; `ALONE` if none."""
    return _joined


@contextmanager
def joined(device: str, folder: Path | None, group: RankGroup) -> Iterator[Ranks]:
    """Within this context the process is one of the ranks that torch's launcher started.

    Collectives use gloo for CPU tensors, and NCCL for CUDA, where each rank uses the device
    numbered like its local rank.

    Args:
        device: the cell's device.
        folder: where the rank tells the supervisor whether it waits; None without a supervisor.
        group: the ranks of this start.

    Raises:
        UsageError: several processes cannot train together on this device.
    """
    global _joined
    rank, count = group.rank, group.count
    _choose_device(device)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo",
        store=group.store, rank=rank, world_size=count,
        timeout=timedelta(seconds=COLLECTIVE_S),
    )  # fmt: skip
    _joined = Ranks(rank, count, None if folder is None else RankWriter(folder, rank))
    _joined.note(WorkerStage.FETCHING)
    try:
        yield _joined
    finally:
        _joined = ALONE
    dist.destroy_process_group()  # not after an error: it may wait for a rank that has gone


def _choose_device(device: str) -> None:
    if device == "mps":
        raise UsageError("device mps: cannot train in several processes; take --nproc 1 or the cpu")
    if device == "cuda":
        local = int(os.environ["LOCAL_RANK"])
        if local >= torch.cuda.device_count():
            raise UsageError(
                f"device cuda: a process for each device, and there are {torch.cuda.device_count()}"
                " on this machine; take a smaller --nproc"
            )
        torch.cuda.set_device(local)


class SummedModel:
    """A model whose gradients are sums over all ranks, once `reduce` has returned.

    Dense parameters use torch's DistributedDataParallel, which overlaps communication with the
    backward pass; embedding tables use `TableExchange`. With one rank it is only the model.

    Args:
        model: a model with equal parameters on every rank.
        ranks: the ranks that train it.
    """

    def __init__(self, model: nn.Module, ranks: Ranks) -> None:
        self.ranks = ranks
        self.forward: nn.Module = model
        if ranks.count == 1:
            return
        tables = {
            name: part for name, part in model.named_modules() if isinstance(part, EmbeddingTable)
        }
        self.tables = TableExchange(list(tables.values()), ranks)
        ddp = nn.parallel.DistributedDataParallel
        ddp._set_params_and_buffers_to_ignore_for_model(  # type: ignore[no-untyped-call]
            model, [f"{name}.weight" for name in tables]
        )
        self.forward = ddp(model)
        # a lambda, because torch cannot read annotations that are strings
        self.forward.register_comm_hook(ranks, lambda state, bucket: _sum_bucket(state, bucket))

    def reduce(self) -> None:
        """Sum the gradients of the tables, which DDP ignores. Call it after the backward pass."""
        if self.ranks.count > 1:
            self.tables.reduce()
            self.ranks.note(WorkerStage.FETCHING)


def _sum_bucket(ranks: Ranks, bucket: Any) -> torch.futures.Future[Tensor]:
    """Sums a bucket of gradients for DDP, whose default would average them."""
    if bucket.is_last():
        ranks.note(WorkerStage.IDLE)
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    assert work is not None
    future: torch.futures.Future[Tensor] = work.get_future().then(lambda done: done.value()[0])
    return future


class TableExchange:
    """Sums the gradients of embedding tables over the ranks, by their touched rows.

    A batch touches few rows of a table, and sending only those rows with their numbers is exact.
    They are added in rank order, so every rank ends up with the same bits. If so many rows were
    touched that the whole gradient is cheaper to send, that is reduced instead.

    Args:
        tables: the tables, the same on every rank and in the same order.
        ranks: the ranks that train them.
        sparse: replaces `is_sparse_less`, for comparisons; both ways are exact.
    """

    def __init__(
        self,
        tables: Sequence[EmbeddingTable],
        ranks: Ranks,
        sparse: Callable[[int, int, int, int], bool] | None = None,
    ) -> None:
        self.tables, self.ranks, self.sparse = tables, ranks, sparse or is_sparse_less
        self._ids: list[list[Tensor]] = [[] for _ in tables]
        for table, ids in zip(tables, self._ids, strict=True):
            table.register_forward_pre_hook(_noting(ids))

    def reduce(self) -> None:
        """Replace each table's gradient by the sum over the ranks."""
        touched = [self._touched(*pair) for pair in zip(self.tables, self._ids, strict=True)]
        for ids in self._ids:
            ids.clear()
        counts = self._all(torch.tensor([len(rows) for rows, _ in touched]))
        sparse, count = [], self.ranks.count
        for place, table in enumerate(self.tables):
            most = int(counts[:, place].amax())
            if not table.dense or self.sparse(len(table.weight), table.embedding_dim, most, count):
                sparse.append(place)
                continue
            assert table.weight.grad is not None, "it was looked up"
            dist.all_reduce(table.weight.grad)
            table.forget()  # the table does not know which rows other ranks touched
        if sparse:
            self._exchange(sparse, [touched[place] for place in sparse], counts[:, sparse].tolist())

    @staticmethod
    def _touched(table: EmbeddingTable, ids: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The rows that this rank's batch touched, int64 (n,), and their gradients, (n, width)."""
        if (known := table.touched()) is not None:
            return known
        grad = table.weight.grad
        assert grad is not None, "it was looked up"
        rows = torch.unique(torch.cat([part.reshape(-1) for part in ids]).long())
        return rows, grad.index_select(0, rows)

    def _exchange(
        self,
        places: Sequence[int],
        touched: Sequence[tuple[Tensor, Tensor]],
        counts: Sequence[Sequence[int]],
    ) -> None:
        """Exchange all tables at once, in two collectives however many tables there are."""
        tables = [self.tables[place] for place in places]
        widths = [table.weight.shape[1] for table in tables]
        all_rows = self._parts([rows for rows, _ in touched], counts)
        all_values = self._parts(
            [values.reshape(-1) for _, values in touched],
            [[n * width for n, width in zip(row, widths, strict=True)] for row in counts],
        )
        for place, table in enumerate(tables):
            parts = [of_rank[place] for of_rank in all_rows]
            rows, where = torch.unique(torch.cat(parts), return_inverse=True)
            summed = table.weight.new_zeros(len(rows), widths[place])
            at = 0
            for part, of_rank in zip(parts, all_values, strict=True):
                # the rows of one rank are distinct, so the sum is made in rank order with any
                # number of threads
                values = of_rank[place].view(-1, widths[place])
                summed.index_add_(0, where[at : at + len(part)], values)
                at += len(part)
            table.replace(touched[place][0], rows, summed)

    def _parts(
        self, tensors: Sequence[Tensor], lengths: Sequence[Sequence[int]]
    ) -> list[tuple[Tensor, ...]]:
        """Gather these 1-D tensors from every rank; `lengths[rank][i]` is the size of tensor i."""
        joined = torch.cat(list(tensors))
        padded = joined.new_zeros(max(map(sum, lengths)))
        padded[: len(joined)] = joined
        found = self._all(padded)
        return [
            part[: sum(of_rank)].split(list(of_rank))
            for part, of_rank in zip(found, lengths, strict=True)
        ]

    def _all(self, tensor: Tensor) -> Tensor:
        """This tensor of every rank, stacked in rank order: (ranks, ...)."""
        found = [torch.empty_like(tensor) for _ in range(self.ranks.count)]
        dist.all_gather(found, tensor)
        return torch.stack(found)


def _noting(ids: list[Tensor]) -> Any:
    def note(_module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        if torch.is_grad_enabled():
            ids.append(arguments[0].detach())

    return note


def is_sparse_less(rows: int, width: int, touched: int, ranks: int) -> bool:
    """Whether to exchange touched rows instead of the whole gradient of a table.

    With the touched rows, a rank receives `ranks - 1` parts of `touched` rows; each row is `width`
    floats and a row number as large as two floats. With a ring all-reduce, it sends and receives 2
    (ranks - 1) / ranks of all rows. Finding and adding scattered rows costs about as much as moving
    them, so the touched rows must be less than half of that.

    Args:
        rows: rows of the table.
        width: floats per row.
        touched: the most rows that any rank touched.
        ranks: number of ranks.
    """
    sparse = (ranks - 1) * touched * (width + 2)
    dense = 2 * (ranks - 1) / ranks * rows * width
    return 2 * sparse < dense


def checksum(model: nn.Module) -> int:
    """An integer that almost surely differs if the float32 parameters of two models differ."""
    total = 0
    for place, parameter in enumerate(model.parameters(), 1):
        bits = parameter.detach().contiguous().view(torch.int32)
        total = (total * 31 + place * int(bits.sum(dtype=torch.int64))) % 2**61
    return total


def in_global_order(
    parts: Sequence[tuple[Mapping[str, Tensor], Sequence[int]]],
) -> dict[str, Tensor]:
    """Columns of all ranks in the order in which a single rank would have them.

    Args:
        parts: per rank, its columns, and the number of rows of each of its pieces. A piece is a
            rank's part of one global batch. Rank 0 may have pieces before the first ones of the
            others.

    Returns:
        The columns, ordered by piece, and within a piece by rank.
    """
    if len(parts) == 1:
        return dict(parts[0][0])
    most = max(len(pieces) for _, pieces in parts)
    filled = [columns for columns, pieces in parts if sum(pieces)] or [parts[0][0]]

    def pieces_of(name: str) -> Iterator[Tensor]:
        of_ranks = [
            columns[name]
            .to(filled[0][name].dtype)
            .split_with_sizes([0] * (most - len(pieces)) + [*pieces])
            for columns, pieces in parts
        ]
        return itertools.chain.from_iterable(zip(*of_ranks, strict=True))

    return {name: torch.cat([*pieces_of(name), filled[0][name][:0]]) for name in filled[0]}
