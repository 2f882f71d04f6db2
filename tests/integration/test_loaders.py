"""All loaders yield the same batches, whatever processes and threads they come through."""

from __future__ import annotations

import gc
import hashlib
import multiprocessing
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from devices import ON_DEVICES

from ctrkit.core.config import LOADERS, START_METHODS, Cell, make_cell
from ctrkit.core.errors import UsageError
from ctrkit.ctr.data import resident_loader
from ctrkit.ctr.data.gather import BATCH_KEYS, Gatherer, gather
from ctrkit.ctr.data.loaders import make_loader
from ctrkit.ctr.data.sample_order import epoch_order
from ctrkit.ctr.data.store import Store
from ctrkit.ctr.data.store_loader import StoreLoader
from ctrkit.ctr.data.synthetic import generate_store
from ctrkit.ctr.data.thread_loader import ThreadLoader

BATCH, LENGTH, SEED = 64, 12, 42
# From Python 3.12 on, any fork beside a thread warns; that this is risky is what ctrkit is about.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


@pytest.fixture(scope="module", autouse=True)
def quick_forkserver() -> None:
    """Its workers are sent what spawned ones are, but find torch imported."""
    multiprocessing.set_forkserver_preload(["__main__", "torch", "ctrkit.ctr.data.loaders"])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    out = tmp_path_factory.mktemp("loaders") / "store"
    generate_store(out, rows=730, users=60, items=80, seed=5)
    return Store.open(out)


@contextmanager
def loading(store: Store, split: str = "train", **axes: Any) -> Iterator[StoreLoader]:
    axes = {"batch_size": BATCH, "device": "cpu", "threads": 1} | axes
    options = {name: axes.pop(name) for name in ("drop_last", "rank", "ranks") if name in axes}
    loader = make_loader(
        store,
        make_cell(**axes),
        split=split,
        seed=SEED,
        history_length=LENGTH,
        **options,
    )
    try:
        yield loader
    finally:
        loader.close()


def digests(batches: Iterable[dict[str, torch.Tensor]]) -> list[str]:
    """A hash of all names, types, shapes and bytes of each batch."""
    found = []
    for batch in batches:
        digest = hashlib.sha256()
        for name, tensor in batch.items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
            digest.update(tensor.cpu().numpy().tobytes())
        found.append(digest.hexdigest())
    return found


def expected(store: Store, epoch: int, split: str = "train", first_batch: int = 0) -> list[str]:
    """The batches, gathered here and now from the order alone."""
    rows = store.rows(split)
    shuffled = epoch_order(len(rows), SEED, epoch)
    order = shuffled if split == "train" else np.arange(rows.start, rows.stop)
    parts = [order[i : i + BATCH] for i in range(first_batch * BATCH, len(order), BATCH)]
    batches = [gather(store, part, LENGTH) for part in parts]
    return digests(
        {name: torch.from_numpy(batch[name]) for name in BATCH_KEYS} for batch in batches
    )


@pytest.mark.parametrize("loader", LOADERS)
def test_without_workers(store: Store, loader: str) -> None:
    with loading(store, loader=loader) as train, loading(store, "validation", loader=loader) as val:
        for epoch in (1, 2):
            train.set_epoch(epoch)
            val.set_epoch(epoch)
            assert digests(train) == expected(store, epoch)
            assert digests(val) == expected(store, epoch, "validation")
            assert len(train) == len(expected(store, epoch))
        train.set_epoch(3, first_batch=4)
        assert digests(train) == expected(store, 3)[4:]


@pytest.mark.parametrize(
    ("workers", "method"),
    # each spawned worker imports torch, so that two of them are the one case
    [
        (count, method)
        for method in START_METHODS
        for count in (1, 2)
        if (count, method) != (1, "spawn")
    ],
)
@pytest.mark.parametrize("loader", ["rows", "batches"])
def test_with_workers(store: Store, loader: str, workers: int, method: str) -> None:
    with loading(store, loader=loader, workers=workers, start_method=method) as train:
        train.set_epoch(2, first_batch=1)
        assert digests(train) == expected(store, 2)[1:]
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("loader", ["rows", "batches"])
def test_persistent_workers_follow_the_epoch(store: Store, loader: str) -> None:
    axes = {"workers": 2, "start_method": "fork", "persistent": True}
    with loading(store, loader=loader, **axes) as train:
        train.set_epoch(1)
        assert digests(train) == expected(store, 1)
        pids = {process.pid for process in multiprocessing.active_children()}
        train.set_epoch(2)
        iterator = iter(train)
        assert digests([next(iterator)]) == expected(store, 2)[:1]
        train.set_epoch(3, first_batch=2)  # the epoch before was not read to its end
        assert digests(train) == expected(store, 3)[2:]
        assert {process.pid for process in multiprocessing.active_children()} == pids
    assert multiprocessing.active_children() == []


def test_epochs_differ(store: Store) -> None:
    assert not set(expected(store, 1)) & set(expected(store, 2))


@pytest.mark.parametrize("loader", LOADERS)
def test_drop_last(store: Store, loader: str) -> None:
    with loading(store, loader=loader, drop_last=True) as train:
        assert len(store.rows("train")) % BATCH
        assert len(train) == len(expected(store, 1)) - 1
        assert digests(train) == expected(store, 1)[:-1]


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize(
    "axes", [*({"loader": name} for name in LOADERS), {"loader": "rows", "workers": 1,
                                                      "start_method": "forkserver"}],
)  # fmt: skip
def test_ranks_share_the_global_batches_in_order(
    store: Store, axes: dict[str, Any], ranks: int
) -> None:
    size = 40  # its last batch has a single row, so that all ranks but one get nothing of it
    assert len(store.rows("train")) % size == 1
    with loading(store, **axes, batch_size=size) as whole:
        whole.set_epoch(2, first_batch=3)
        batches = [{name: t.clone() for name, t in batch.items()} for batch in whole]
    parts = []
    for rank in range(ranks):
        with loading(store, **axes, batch_size=size, rank=rank, ranks=ranks) as part:
            part.set_epoch(2, first_batch=3)
            assert len(part) == len(batches) + 3
            parts.append([{name: t.clone() for name, t in batch.items()} for batch in part])
    for batch, *of_ranks in zip(batches, *parts, strict=True):
        sizes = [len(share["label"]) for share in of_ranks]
        assert sizes == [len(share) for share in np.array_split(batch["label"], ranks)]
        for name, tensor in batch.items():
            joined = torch.cat([share[name] for share in of_ranks])
            assert joined.dtype == tensor.dtype
            assert torch.equal(joined, tensor)


@pytest.mark.parametrize(
    "axes", [*({"loader": name} for name in LOADERS), {"loader": "batches", "workers": 1,
                                                      "start_method": "fork"}],
)  # fmt: skip
def test_the_models_random_stream_is_left_alone(store: Store, axes: dict[str, Any]) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    with loading(store, **axes) as train:
        for _ in train:
            pass
        train.set_epoch(2)
        next(iter(train))
    assert torch.equal(torch.get_rng_state(), before)


def loader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "ctrkit-loader"]


def test_thread_ends_at_close_in_the_middle_of_an_epoch(store: Store) -> None:
    with loading(store, loader="thread", batch_size=8, prefetch=2) as train:
        iterator = iter(train)
        next(iterator)
        assert len(loader_threads()) == 1
        assert not loader_threads()[0].daemon
        train.close()
        assert loader_threads() == []
        assert next(iterator, None) is None


def test_thread_ends_when_its_iterator_is_left_or_replaced(store: Store) -> None:
    with loading(store, loader="thread", batch_size=8, prefetch=2) as train:
        for _ in train:
            break
        gc.collect()
        assert loader_threads() == []
        first = iter(train)
        next(first)
        second = iter(train)
        assert digests([next(second)])
        assert len(loader_threads()) == 1
        assert next(first, None) is None


def test_thread_reads_no_further_than_its_depth(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = rows_read(monkeypatch)
    with loading(store, loader="thread", batch_size=8, prefetch=2) as train:
        iterator = iter(train)
        next(iterator)
        time.sleep(0.3)  # time enough to gather all, if nothing held the thread back
        assert len(read) <= 8 * (2 + 2)  # a block of two batches in hand, one ready


def rows_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by the row numbers that are gathered from now on, in this process."""
    read: list[int] = []
    fill = Gatherer.fill

    def recorded(self: Gatherer, indices: Any, *out: Any) -> None:
        read.extend(indices.tolist())
        fill(self, indices, *out)

    monkeypatch.setattr(Gatherer, "fill", recorded)
    return read


def test_skipped_batches_are_not_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    read = rows_read(monkeypatch)
    for name in ("batches", "thread", "resident"):
        read.clear()
        with loading(store, loader=name) as train:
            train.set_epoch(1, first_batch=6)
            assert len(digests(train)) == len(train) - 6
        rows = len(store.rows("train"))
        assert read == epoch_order(rows, SEED, 1)[6 * BATCH :].tolist()


def test_an_error_in_the_thread_reaches_the_consumer(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    fill = Gatherer.fill

    def failing(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise OSError("the disk is gone")
        fill(*arguments)

    monkeypatch.setattr(Gatherer, "fill", failing)
    with loading(store, loader="thread", prefetch=1) as train:
        iterator = iter(train)
        next(iterator)
        next(iterator)
        with pytest.raises(OSError, match="the disk is gone"):
            next(iterator)
        assert loader_threads() == []


@pytest.mark.parametrize("loader", LOADERS)
def test_batches_that_are_kept_never_change(store: Store, loader: str) -> None:
    """Memory is used again only when nobody holds a batch any more, or any part of one."""
    with loading(store, loader=loader, batch_size=16) as train:
        kept, parts = [], []
        for epoch in (1, 2, 3):
            train.set_epoch(epoch)
            for number, batch in enumerate(train):
                if number % 3 == 0:
                    kept.append((epoch, number, batch))
                elif number % 3 == 1:  # only a view of a view, through numpy
                    parts.append((epoch, number, batch["history_item"][3:, 2:].numpy()[1:]))
        del batch
        train.close()
        gc.collect()
        for epoch, number, batch in kept:
            train.set_epoch(epoch, first_batch=number)
            assert digests([batch]) == digests([next(iter(train))])
        for epoch, number, part in parts:
            train.set_epoch(epoch, first_batch=number)
            whole = next(iter(train))["history_item"]
            assert np.array_equal(part, whole[4:, 2:].numpy())


def test_a_consumer_that_keeps_nothing_gets_the_same_memory_again(store: Store) -> None:
    for loader in ("thread", "batches", "resident"):
        with loading(store, loader=loader, batch_size=64, prefetch=1) as train:
            addresses = set()
            for epoch in range(1, 6):
                train.set_epoch(epoch)
                addresses |= {batch["history_item"].data_ptr() for batch in train}
            assert len(addresses) < 5 * len(train) / 3


def test_threads_share_the_gather_and_keep_the_order(store: Store) -> None:
    for threads in (1, 2, 3):
        loader = ThreadLoader(
            store, make_cell(batch_size=BATCH, prefetch=3), split="train", seed=SEED,
            history_length=LENGTH, gather_threads=threads,
        )  # fmt: skip
        assert digests(loader) == expected(store, 1)
        iterator = iter(loader)
        next(iterator)
        assert len(loader_threads()) == threads
        loader.close()
        assert loader_threads() == []


DIES = """
import sys
from ctrkit.core.config import make_cell
from ctrkit.ctr.data.loaders import make_loader
from ctrkit.ctr.data.store import Store
loader = make_loader(
    Store.open(sys.argv[1]), make_cell(batch_size=8), split="train", seed=1, history_length=5
)
iterator = iter(loader)
next(iterator)
raise RuntimeError("the loop died")
"""


def test_a_loop_that_dies_holding_its_iterator_still_exits(store: Store) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DIES, str(store.path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "the loop died" in done.stderr


def test_workers_end_when_their_iterator_is_left(store: Store) -> None:
    with loading(store, loader="batches", workers=2, start_method="fork") as train:
        for _ in train:
            break
        gc.collect()
        assert multiprocessing.active_children() == []


def test_resident_tables_are_shared_and_freed(store: Store) -> None:
    with (
        loading(store, loader="resident") as train,
        loading(store, "validation", loader="resident") as validation,
    ):
        tables = [loader._tables for loader in (train, validation)]
        assert tables[0] is tables[1]
    del train, validation, tables
    gc.collect()
    assert len(resident_loader._tables_in_use) == 0


def test_resident_of_a_store_without_behaviors(tmp_path: Path) -> None:
    generate_store(tmp_path / "s", rows=40, users=1, items=5, seed=0)
    store = Store.open(tmp_path / "s")
    store.behavior_item = store.behavior_item[:0]
    store.behavior_category = store.behavior_category[:0]
    store.impressions = store.impressions.copy()
    store.impressions[:, 6:] = 0
    found = []
    for name in ("thread", "resident"):
        with loading(store, loader=name) as train:
            found.append(digests(train))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("cell", "split", "words"),
    [
        (Cell(loader="thread", workers=1), "train", "has no workers"),
        (Cell(loader="resident", workers=2), "train", "has no workers"),
        (Cell(loader="custom"), "train", "unknown loader 'custom'"),
        (Cell(), "test", "unknown split 'test'"),
    ],
)
def test_cells_that_cannot_be_served(store: Store, cell: Cell, split: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        make_loader(store, cell, split=split, seed=1, history_length=5)


@pytest.mark.skipif(torch.cuda.is_available(), reason="pinning is fine with CUDA")
def test_pinning_needs_cuda(store: Store) -> None:
    with pytest.raises(UsageError, match="needs CUDA"):
        make_loader(store, Cell(pin=True), split="train", seed=1, history_length=5)


@pytest.mark.parametrize("device", ON_DEVICES)
def test_resident_on_a_device(store: Store, device: str) -> None:
    with loading(store, loader="resident", device=device) as train:
        batch = next(iter(train))
        assert {tensor.device.type for tensor in batch.values()} == {device}
        assert digests(train) == expected(store, 1)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no cuda here")
@pytest.mark.parametrize("loader", ["rows", "batches", "thread"])
def test_pinned_batches(store: Store, loader: str) -> None:
    with loading(store, loader=loader, pin=True) as train:
        assert all(tensor.is_pinned() for tensor in next(iter(train)).values())
        assert digests(train) == expected(store, 1)
