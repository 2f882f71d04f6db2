"""The loaders that `loaders.py` compares: ours, other libraries', and the limit of the machine.

What others load is a table of rows of 672 bytes (`Rows`); each is used as its own documentation or
its own trainer does, shuffled, to torch tensors. All that a worker process needs is defined here
at module level, so that spawned ones find it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from ctrkit.core.config import make_cell
from ctrkit.ctr.data.buffers import BufferPool
from ctrkit.ctr.data.gather import COLUMN_ROWS, Gatherer
from ctrkit.ctr.data.loaders import make_loader
from ctrkit.ctr.data.sample_order import epoch_order
from ctrkit.ctr.data.store import Store
from ctrkit.ctr.data.thread_loader import ThreadLoader

IDS, FLOATS, HISTORY, HISTORIES = 15, 2, 50, 3
ROW_BYTES = 4 * (IDS + FLOATS + 1 + HISTORY * HISTORIES)
#: Bytes of a row in a batch of a store: ids, label, length, two histories.
STORE_ROW_BYTES = 4 * (COLUMN_ROWS + 2 * HISTORY)
PACKED_ROW_BYTES = 32
LIMIT_BYTES = 2**31
#: Random places drawn for the limit; their rows are far more than fit into a cache.
LIMIT_PLACES = 2**21

Columns = dict[str, np.ndarray]


@dataclass(frozen=True)
class Rows:
    """A table of rows, by column and packed: (rows, 168) int32 with the bits of the floats."""

    columns: Columns
    packed: np.ndarray

    def __len__(self) -> int:
        return len(self.packed)


def make_rows(count: int) -> Rows:
    random = np.random.default_rng(1)
    columns: Columns = {f"id_{i}": random.integers(1, 100_000, count, np.int32) for i in range(IDS)}
    columns |= {f"float_{i}": random.random(count, np.float32) for i in range(FLOATS)}
    columns["label"] = (random.random(count) < 0.05).astype(np.float32)
    columns |= {
        f"history_{i}": random.integers(0, 100_000, (count, HISTORY), np.int32)
        for i in range(HISTORIES)
    }
    packed = np.column_stack([c.view(np.int32).reshape(count, -1) for c in columns.values()])
    assert packed.nbytes == ROW_BYTES * count
    return Rows(columns, packed)


@dataclass(frozen=True)
class Machine:
    """The data that contenders read: the peers' rows, our store, the limit's table, a folder."""

    rows: Rows
    store: Store
    table: np.ndarray  # (n, 672) bytes, at least LIMIT_BYTES in all
    folder: Path


#: Makes the iterable of an epoch; if it has a `close`, that ends it.
Make = Callable[[Machine, int], Any]


@dataclass(frozen=True)
class Contender:
    """Something that yields batches; `needs` is the package that must be installed for it."""

    name: str
    make: Make
    group: str
    row_bytes: int = ROW_BYTES
    needs: str | None = None
    #: Batches and rows that may be ready before a turn; they are taken before the clock starts.
    ahead: int = 4
    ahead_rows: int = 0

    def is_here(self) -> bool:
        return self.needs is None or importlib.util.find_spec(self.needs) is not None


# ---- the limit -----------------------------------------------------------------------------------


class Limit:
    """The machine's limit: only `np.take` of random rows of a large table into the same memory."""

    def __init__(self, machine: Machine, batch_size: int, threads: int, row_bytes: int) -> None:
        flat = machine.table.reshape(-1)
        self.table = flat[: len(flat) // row_bytes * row_bytes].reshape(-1, row_bytes)
        self.batch_size = batch_size
        batches = LIMIT_PLACES // batch_size
        random = np.random.default_rng()
        self.lanes = [
            (
                random.integers(0, len(self.table), (batches, batch_size)),
                np.empty((batch_size, row_bytes), np.uint8),
            )
            for _ in range(threads)
        ]
        self.pool = ThreadPoolExecutor(threads)

    def take(self, lane: int, batches: range) -> None:
        places, out = self.lanes[lane]
        for batch in batches:
            np.take(self.table, places[batch], axis=0, out=out, mode="clip")

    def __iter__(self) -> Iterator[int]:
        """Yield numbers of rows taken; threads get many batches at once, to save overhead."""
        lanes = range(len(self.lanes))
        share = 1 if len(lanes) == 1 else max(1, 65_536 // self.batch_size)
        batches = len(self.lanes[0][0])
        for first in range(0, batches - share + 1, share):
            part = range(first, first + share)
            if len(lanes) == 1:
                self.take(0, part)
            else:
                list(self.pool.map(self.take, lanes, [part] * len(lanes)))
            yield share * self.batch_size * len(lanes)

    def close(self) -> None:
        self.pool.shutdown()


# ---- ours ----------------------------------------------------------------------------------------


def our_loader(name: str) -> Make:
    def make(machine: Machine, batch_size: int) -> Any:
        cell = make_cell(batch_size=batch_size, loader=name, threads=1)
        return make_loader(
            machine.store, cell, split="train", seed=1, history_length=HISTORY, drop_last=True
        )

    return make


def our_threads(threads: int) -> Make:
    def make(machine: Machine, batch_size: int) -> Any:
        return ThreadLoader(
            machine.store,
            make_cell(batch_size=batch_size, threads=1),
            split="train",
            seed=1,
            history_length=HISTORY,
            drop_last=True,
            gather_threads=threads,
        )

    return make


def packed_part(machine: Machine, batch_size: int) -> Iterator[tuple[torch.Tensor, ...]]:
    """The impressions without histories: what the `thread` loader does for its columns."""
    store = machine.store
    gatherer = Gatherer.of(store, HISTORY)
    block = max(1, 8192 // batch_size) * batch_size
    pool = BufferPool(COLUMN_ROWS * block, keep=4)
    order = epoch_order(len(store.rows("train")), 1, 1)
    for start in range(0, len(order) - block, block):
        columns = pool.lend(COLUMN_ROWS, block)
        gatherer.fill_columns(order[start : start + block], columns)
        tensor = torch.from_numpy(columns)
        for first in range(0, block, batch_size):
            yield tensor[:, first : first + batch_size].unbind()


def packed_rows(machine: Machine, batch_size: int) -> Iterator[torch.Tensor]:
    """The peers' rows, packed, taken into reused memory without a process or a thread."""
    packed = machine.rows.packed
    pool = BufferPool(packed.shape[1] * batch_size, keep=4)
    order = epoch_order(len(packed), 1, 1)
    for start in range(0, len(order) - batch_size, batch_size):
        out = pool.lend(batch_size, packed.shape[1])
        np.take(packed, order[start : start + batch_size], axis=0, out=out, mode="clip")
        yield torch.from_numpy(out)


# ---- torch ---------------------------------------------------------------------------------------


class FieldRows(Dataset[Any]):
    """A tensor per field, as most tutorials have it."""

    def __init__(self, columns: Columns) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns["label"])

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {name: torch.as_tensor(column[index]) for name, column in self.columns.items()}


class ColumnRows(FieldRows):
    """A NumPy value per column; the default collate makes tensors of them."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {name: column[index] for name, column in self.columns.items()}


class VectorRows(ColumnRows):
    """Rows taken as whole batches: torch calls `__getitems__` if there is one."""

    def __getitems__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(c[indices]) for name, c in self.columns.items()}


def as_it_is(batch: Any) -> Any:
    return batch


def stock(kind: type[FieldRows], workers: int, method: str | None = None) -> Make:
    def make(machine: Machine, batch_size: int) -> Any:
        options: dict[str, Any] = {"num_workers": workers}
        if workers:
            options |= {"multiprocessing_context": method, "persistent_workers": True}
        if kind is VectorRows:
            options["collate_fn"] = as_it_is
        rows = kind(machine.rows.columns)
        return DataLoader(rows, batch_size, shuffle=True, drop_last=True, **options)

    return make


def tensor_dataset(machine: Machine, batch_size: int) -> Any:
    tensors = [torch.from_numpy(column) for column in machine.rows.columns.values()]
    return DataLoader(TensorDataset(*tensors), batch_size, shuffle=True, drop_last=True)


# ---- others --------------------------------------------------------------------------------------


def fuxictr(workers: int) -> Make:
    def make(machine: Machine, batch_size: int) -> Any:
        logging.getLogger().setLevel(logging.WARNING)
        from fuxictr.features import FeatureMap
        from fuxictr.pytorch.dataloaders.npz_dataloader import NpzDataLoader

        path = machine.folder / "rows.npz"
        if not path.exists():
            np.savez(path, **machine.rows.columns)
        features = FeatureMap("bench", str(machine.folder))
        features.labels = ["label"]
        for name in machine.rows.columns:
            if name.startswith("history"):
                features.features[name] = {"type": "sequence", "max_len": HISTORY}
            elif name != "label":
                kind = "numeric" if name.startswith("float") else "categorical"
                features.features[name] = {"type": kind}
        features.set_column_index()
        return NpzDataLoader(features, str(path), batch_size, shuffle=True, num_workers=workers)

    return make


def deepctr(machine: Machine, batch_size: int) -> Any:
    """Do what `BaseModel.fit` does with its `x` and `y`."""
    columns = dict(machine.rows.columns)
    y = columns.pop("label")[:, None]
    x = [c if c.ndim == 2 else c[:, None] for c in columns.values()]
    table = torch.from_numpy(np.concatenate(x, axis=-1))
    return DataLoader(
        dataset=TensorDataset(table, torch.from_numpy(y)), shuffle=True, batch_size=batch_size
    )


def rechub(workers: int) -> Make:
    def make(machine: Machine, batch_size: int) -> Any:
        from torch_rechub.utils.data import DataGenerator

        x = dict(machine.rows.columns)
        y = x.pop("label")
        few = {name: column[:2] for name, column in x.items()}
        with contextlib.redirect_stdout(io.StringIO()):
            return DataGenerator(x, y).generate_dataloader(
                few, y[:2], few, y[:2], batch_size=batch_size, num_workers=workers
            )[0]

    return make


def index_batches(rows: int, batch_size: int) -> list[np.ndarray]:
    order = epoch_order(rows, 1, 1)
    return [order[i : i + batch_size] for i in range(0, rows - batch_size, batch_size)]


def gather_of(columns: Columns) -> Callable[[np.ndarray], dict[str, torch.Tensor]]:
    return lambda index: {name: torch.from_numpy(c[index]) for name, c in columns.items()}


def torchdata_nodes(machine: Machine, batch_size: int) -> Any:
    from torchdata.nodes import IterableWrapper, Loader, ParallelMapper

    indices = IterableWrapper(index_batches(len(machine.rows), batch_size))
    gather = gather_of(machine.rows.columns)
    return Loader(ParallelMapper(indices, gather, num_workers=1, method="thread"))


def stateful(workers: int) -> Make:
    def make(machine: Machine, batch_size: int) -> Any:
        from torchdata.stateful_dataloader import StatefulDataLoader

        options = {"multiprocessing_context": "fork"} if workers else {}
        rows = ColumnRows(machine.rows.columns)
        return StatefulDataLoader(
            rows, batch_size, shuffle=True, drop_last=True, num_workers=workers, **options
        )

    return make


class Spdl:
    """An SPDL pipeline, which is built for each epoch."""

    def __init__(self, machine: Machine, batch_size: int) -> None:
        self.indices = index_batches(len(machine.rows), batch_size)
        self.gather = gather_of(machine.rows.columns)

    def __iter__(self) -> Iterator[Any]:
        from spdl.pipeline import PipelineBuilder

        built = PipelineBuilder().add_source(self.indices).pipe(self.gather).add_sink(2)
        pipeline = built.build(num_threads=1)
        with pipeline.auto_stop():
            yield from pipeline.get_iterator()


def hugging_face(machine: Machine, batch_size: int) -> Any:
    import datasets
    import pyarrow as pa

    def array(column: np.ndarray) -> Any:
        flat = pa.array(column.reshape(-1))
        return flat if column.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, HISTORY)

    table = pa.table({name: array(column) for name, column in machine.rows.columns.items()})
    rows = datasets.Dataset(table).with_format("torch")
    return DataLoader(rows, batch_size=batch_size, shuffle=True, drop_last=True)


# ---- all of them ---------------------------------------------------------------------------------


def with_workers(
    name: str, kind: type[FieldRows], group: str, forks: tuple[int, ...], spawns: tuple[int, ...]
) -> list[Contender]:
    found = [Contender(f"{name}, no workers", stock(kind, 0), group)]
    for method, counts in (("fork", forks), ("spawn", spawns)):
        found += [
            Contender(f"{name}, {n} workers ({method})", stock(kind, n, method), group, ahead=2 * n)
            for n in counts
        ]
    return found


def limit(threads: int, row_bytes: int = ROW_BYTES) -> Contender:
    words = "1 thread" if threads == 1 else f"{threads} threads"
    return Contender(
        f"limit of {row_bytes} bytes, {words}",
        lambda machine, batch_size: Limit(machine, batch_size, threads, row_bytes),
        "limit",
        row_bytes,
    )


OUR_THREADS = ("thread, 1 thread", "thread, 2 threads")
PACKED_PART = "packed part of thread alone"


def contenders() -> list[Contender]:
    """All contenders; those that fork come first, while no other contender's thread runs."""
    others = [
        Contender("FuxiCTR npz, no workers", fuxictr(0), "ctr", needs="fuxictr"),
        Contender("FuxiCTR npz, 2 workers", fuxictr(2), "ctr", needs="fuxictr"),
        Contender("DeepCTR-Torch", deepctr, "ctr", needs="deepctr_torch"),
        Contender("torch-rechub, no workers", rechub(0), "ctr", needs="torch_rechub"),
        Contender("torch-rechub, 2 workers", rechub(2), "ctr", needs="torch_rechub"),
        Contender("StatefulDataLoader, no workers", stateful(0), "loader", needs="torchdata"),
        Contender("StatefulDataLoader, 2 workers", stateful(2), "loader", needs="torchdata"),
        Contender("torchdata nodes, 1 thread", torchdata_nodes, "loader", needs="torchdata"),
        Contender("SPDL, 1 thread", Spdl, "loader", needs="spdl"),
        Contender("Hugging Face datasets", hugging_face, "loader", needs="datasets"),
    ]
    ours = [
        *(
            Contender(name, our_threads(n), "ours", STORE_ROW_BYTES, ahead_rows=80_000)
            for n, name in enumerate(OUR_THREADS, start=1)
        ),
        Contender("batches, no workers", our_loader("batches"), "ours", STORE_ROW_BYTES),
        Contender("resident", our_loader("resident"), "ours", STORE_ROW_BYTES),
        Contender(PACKED_PART, packed_part, "ours", PACKED_ROW_BYTES),
        Contender("packed rows, reused memory", packed_rows, "ours"),
    ]
    return [
        *with_workers("stock, a tensor per field", FieldRows, "stock", (1, 2, 4), (1, 2, 4)),
        *with_workers("stock, NumPy columns", ColumnRows, "stock", (2, 4), (2,)),
        *with_workers("DataLoader, vectorised", VectorRows, "stock", (2,), ()),
        Contender("TensorDataset", tensor_dataset, "stock"),
        *others,
        *ours,
        limit(1),
        limit(2),
        limit(1, PACKED_ROW_BYTES),
    ]


#: The limit that each of our loaders is compared with.
LIMITS = {name: limit(n).name for n, name in enumerate(OUR_THREADS, start=1)}
LIMITS[PACKED_PART] = limit(1, PACKED_ROW_BYTES).name
