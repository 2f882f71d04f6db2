from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from ctrkit.core.errors import UsageError
from ctrkit.ctr.data.sample_order import block_order, epoch_order
from ctrkit.ctr.data.store import Store
from ctrkit.ctr.data.synthetic import generate_store
from ctrkit.data import Loader

SIZE = 64


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    out: Path = tmp_path_factory.mktemp("front") / "store"
    generate_store(out, rows=730, users=60, items=80, seed=3)
    return Store.open(out)


def loader_of(store: Store, **options: Any) -> Loader:
    return Loader(store, **({"batch_size": SIZE, "history_length": 5} | options))


def items(batches: Any) -> list[list[int]]:
    return [batch["item"].tolist() for batch in batches]


def expected(store: Store, epoch: int) -> list[list[int]]:
    order = epoch_order(len(store.rows("train")), 42, epoch)
    item = store.impressions[order][:, 1].tolist()
    return [item[i : i + SIZE] for i in range(0, len(item), SIZE)]


def test_each_iter_is_an_epoch(store: Store) -> None:
    with loader_of(store) as loader:
        assert len(loader) == len(expected(store, 1))
        assert items(loader) == expected(store, 1)
        for batch in loader:  # epoch 2, broken off
            assert batch["history_item"].shape == (SIZE, 5)
            break
        assert items(loader) == expected(store, 3)
        loader.set_epoch(2)
        assert items(loader) == expected(store, 2)


def test_a_path_will_do_and_so_will_any_loader(store: Store) -> None:
    for kind in ("rows", "batches", "thread", "resident"):
        with Loader(str(store.path), batch_size=SIZE, loader=kind, seed=42) as loader:
            assert items(loader) == expected(store, 1)
    with loader_of(store, split="validation") as loader:
        rows = store.impressions[store.rows("validation").start :, 1]
        assert [item for batch in items(loader) for item in batch] == rows.tolist()


@pytest.mark.parametrize("taken", [0, 1, 4, 9, 10])
@pytest.mark.parametrize("other", ["thread", "batches"])
def test_the_rest_of_an_epoch_is_the_same(store: Store, taken: int, other: str) -> None:
    assert len(expected(store, 2)) == 10
    with loader_of(store) as loader:
        list(loader)
        iterator = iter(loader)
        first = items(next(iterator) for _ in range(taken))
        state = json.loads(json.dumps(loader.state_dict()))
    with loader_of(store, loader=other) as loader:
        loader.load_state_dict(state)
        assert first + items(loader) == expected(store, 2)
        assert items(loader) == expected(store, 3)
        loader.load_state_dict(state)  # more than once
        assert first + items(loader) == expected(store, 2)


def test_states_inside_the_loop_count_the_batch_in_hand(store: Store) -> None:
    with loader_of(store) as loader:
        states = [loader.state_dict()["batch"] for _ in loader]
        assert states == list(range(1, 11))
        assert (loader.state_dict()["epoch"], loader.state_dict()["batch"]) == (2, 0)


def test_a_state_that_was_loaded_is_the_state(store: Store) -> None:
    with loader_of(store) as loader:
        iterator = iter(loader)
        next(iterator)
        state = loader.state_dict()
        next(iterator)
        loader.load_state_dict(state)
        next(iterator)  # of an iterator that is left behind
        assert loader.state_dict()["epoch"] == 1
        assert items(loader) == expected(store, 1)[1:]


def test_closing_breaks_the_epoch_off(store: Store) -> None:
    loader = loader_of(store, prefetch=1)
    iterator = iter(loader)
    next(iterator)
    loader.close()
    assert list(iterator) == []
    state = loader.state_dict()
    assert (state["epoch"], state["batch"]) == (1, 1)
    assert items(loader) == expected(store, 2)


def test_states_of_another_order_are_refused(store: Store) -> None:
    state = loader_of(store).state_dict()
    for change in ({"batch_size": 32}, {"seed": 1}, {"split": "validation"}, {"drop_last": True},
                   {"block_rows": 8}):  # fmt: skip
        with pytest.raises(UsageError, match=f"loader's state: {next(iter(change))} is"):
            loader_of(store, **change).load_state_dict(state)
    with pytest.raises(UsageError, match="data is"):
        loader_of(store).load_state_dict(state | {"data": "x"})


def test_bad_options(store: Store) -> None:
    with pytest.raises(UsageError, match="unknown loader 'fast'"):
        Loader(store, loader="fast")
    with pytest.raises(UsageError, match="block_rows is 0"):
        Loader(store, block_rows=0)
    with pytest.raises(UsageError, match="no such folder"):
        Loader("/nowhere/at/all")


def test_a_block_shuffle_is_the_same_in_all_loaders(store: Store) -> None:
    order = block_order(len(store.rows("train")), 42, 1, 20)
    item = store.impressions[order][:, 1].tolist()
    for kind in ("rows", "batches", "thread", "resident"):
        with loader_of(store, loader=kind, block_rows=20) as loader:
            assert [i for batch in items(loader) for i in batch] == item


def test_ranks(store: Store) -> None:
    with loader_of(store, rank=0, ranks=2) as one, loader_of(store, rank=1, ranks=2) as two:
        joined = [a + b for a, b in zip(items(one), items(two), strict=True)]
    assert joined == expected(store, 1)


def test_the_models_random_stream_is_left_alone(store: Store) -> None:
    before = torch.get_rng_state()
    list(loader_of(store))
    assert torch.equal(torch.get_rng_state(), before)


def test_importing_the_package_is_light() -> None:
    code = "import sys, ctrkit.data; print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["False", "False"]
