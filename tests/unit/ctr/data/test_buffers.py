from __future__ import annotations

import gc
import threading

import numpy as np
import pytest
import torch

from ctrkit.ctr.data.buffers import BlockPool, BufferPool
from ctrkit.ctr.data.gather import BATCH_KEYS, COLUMN_ROWS


def address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def test_memory_is_lent_again_once_the_array_is_gone() -> None:
    pool = BufferPool(1000, keep=2)
    first = pool.lend(10, 100)
    second = pool.lend(999)
    addresses = {address(first), address(second)}
    assert len(addresses) == 2
    del first
    third = pool.lend(30, 3)
    assert third.shape == (30, 3)
    assert address(third) in addresses


HOLDERS = {
    "slice": lambda array: array[1:, 3],
    "view of a view": lambda array: array[1:].view(np.float32)[:, 1].reshape(-1)[2:],
    "memoryview": lambda array: memoryview(array)[2:],
    "tensor": torch.from_numpy,
    "slice of a tensor": lambda array: torch.from_numpy(array)[1:, 2:].unbind()[0],
    "tensor of another type": lambda array: torch.from_numpy(array).view(torch.float32)[0],
    "numpy of a tensor": lambda array: torch.from_numpy(array)[0].numpy()[1:],
    "storage": lambda array: torch.from_numpy(array)[0].untyped_storage(),
    "detached": lambda array: torch.from_numpy(array).view(torch.float32).detach().T,
    "saved for backward": lambda array: (
        torch.ones((5, 20), requires_grad=True) * torch.from_numpy(array).view(torch.float32)
    ),
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_whatever_is_made_of_an_array_keeps_its_memory(holder: str) -> None:
    pool = BufferPool(100, keep=5)
    array = pool.lend(5, 20)
    array[:] = 0
    taken = address(array)
    held = HOLDERS[holder](array)
    del array
    gc.collect()
    others = [pool.lend(100) for _ in range(4)]
    assert taken not in {address(other) for other in others}
    del held, others
    gc.collect()
    assert taken in {address(array) for array in [pool.lend(100) for _ in range(5)]}


def test_arrays_outlive_their_pool() -> None:
    pool = BufferPool(100, keep=1)
    array = pool.lend(100)
    array[:] = 7
    del pool
    gc.collect()
    others = [np.full(100, 3, np.int32) for _ in range(50)]
    assert (array == 7).all()
    del others, array


def test_no_more_memory_is_kept_than_was_said() -> None:
    pool = BufferPool(10, keep=2)
    lent = [pool.lend(10) for _ in range(5)]
    del lent
    assert len(pool._free) == 2


def test_what_does_not_fit_is_made() -> None:
    pool = BufferPool(10, keep=2)
    assert pool.lend(4, 3).shape == (4, 3)
    assert pool.lend(0, 3).shape == (0, 3)


def test_threads_never_get_the_same_memory() -> None:
    pool = BufferPool(64, keep=8)
    wrong = []

    def work(value: int) -> None:
        for _ in range(2000):
            array = pool.lend(64)
            array[:] = value
            if not (array == value).all():
                wrong.append(value)

    threads = [threading.Thread(target=work, args=(value,)) for value in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []


def test_a_blocks_batches_are_views_with_columns_and_histories_apart() -> None:
    block = BlockPool(10, 3, keep=1).lend(6)
    block.columns.copy_(torch.arange(COLUMN_ROWS * 6).reshape(COLUMN_ROWS, 6))
    block.columns[5] = torch.tensor([0.0, 1, 0, 1, 1, 0]).view(torch.int32)
    block.histories.copy_(torch.arange(36).reshape(2, 6, 3))
    batch = block.batch(slice(2, 5))
    assert set(batch) == set(BATCH_KEYS)
    assert all(tensor.is_contiguous() for tensor in batch.values())
    assert batch["item"].tolist() == [8, 9, 10]
    assert batch["label"].tolist() == [0.0, 1.0, 1.0]
    assert batch["history_length"].tolist() == [38, 39, 40]
    assert batch["history_category"].tolist() == [[24, 25, 26], [27, 28, 29], [30, 31, 32]]
    owners = {name: tensor.untyped_storage().data_ptr() for name, tensor in batch.items()}
    assert len(set(owners.values())) == 2
    assert owners["history_item"] == owners["history_category"] != owners["label"]
