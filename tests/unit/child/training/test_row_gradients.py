"""Gradients by rows as on an accelerator: equal to torch's, without waiting for the device.

The CPU runs the code of an accelerator, or torch's `meta` device does, whose tensors have no
values, so that reading one raises, as it would stall an accelerator. One test needs a real one.
"""

from __future__ import annotations

import pytest
import torch
from devices import ON_DEVICES
from torch.utils._python_dispatch import TorchDispatchMode

from ctrkit.child.training import embedding_tables, row_gradients
from ctrkit.child.training.embedding_tables import EmbeddingTable
from ctrkit.child.training.row_gradients import WORTH_BYTES, distinct_at_once, is_by_rows, works_on
from ctrkit.ctr.phase import Phase
from ctrkit.ctr.training.optimizers import clip_gradients, make_adam
from ctrkit.ctr.workload import MdafTask

CUDA = torch.device("cuda")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def fresh():
    works_on.cache_clear()
    yield
    works_on.cache_clear()


def test_large_tables_go_by_rows_on_a_device_that_can_do_it(monkeypatch):
    assert is_by_rows(torch.device("cpu"), 8, has_padding=False)
    monkeypatch.setattr(row_gradients, "works_on", lambda _: True)
    assert is_by_rows(CUDA, WORTH_BYTES, has_padding=True)
    assert not is_by_rows(CUDA, WORTH_BYTES - 1, has_padding=True)
    assert not is_by_rows(CUDA, WORTH_BYTES, has_padding=False)  # the host would have to wait
    monkeypatch.setattr(row_gradients, "works_on", lambda _: False)
    assert not is_by_rows(CUDA, WORTH_BYTES, has_padding=True)


def test_a_device_that_lacks_an_operation_or_moves_it_to_the_cpu_is_not_used(fresh, monkeypatch):
    assert works_on("cpu")  # the same code, with real values

    def lacking(*_):
        raise NotImplementedError("aten::sort is not implemented for MPS")

    def moving(ids, padding):
        import warnings

        warnings.warn("The operator 'aten::sort' will fall back to run on the CPU", stacklevel=1)
        return distinct_at_once(ids, padding)

    def wrong(ids, padding):
        rows, places = distinct_at_once(ids, padding)
        return rows + 1, places

    for broken in (lacking, moving, wrong):
        works_on.cache_clear()
        monkeypatch.setattr(row_gradients, "distinct", broken)
        assert not works_on("cpu")
    works_on.cache_clear()
    assert not works_on("xpu")  # there is none here: torch's own error


class Passes(TorchDispatchMode):
    """Names of the operations that take or give a tensor of so many elements."""

    def __init__(self, elements: int) -> None:
        super().__init__()
        self.elements, self.names = elements, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        tensors = torch.utils._pytree.tree_leaves((args, kwargs, found))
        if any(isinstance(one, torch.Tensor) and one.numel() == self.elements for one in tensors):
            self.names.append(func.overloadpacket.__name__)
        return found


def step(table, adam, ids):
    adam.zero_grad(set_to_none=True)
    table(ids).square().sum().backward()
    clip_gradients([table.weight], 1.0, [table])


def test_an_accelerators_gradient_and_clipping_pass_over_no_large_table():
    with torch.device("meta"):
        table = EmbeddingTable(WORTH_BYTES // 256, 64, padding_idx=0)
        ids = torch.zeros(3, 5, dtype=torch.int32)
    adam = make_adam([table.weight], Phase())
    step(table, adam, ids)  # the first one makes the memory that is kept
    with Passes(table.weight.numel()) as passes:
        step(table, adam, ids)
    # looked up, and only rows cleared and written; nothing is made, normed or scaled as a whole
    assert set(passes.names) == {"embedding", "index_fill_", "index_copy_", "detach"}
    assert table.touched() is not None
    adam.step()


def test_a_small_table_on_an_accelerator_is_torchs():
    with torch.device("meta"):
        table = EmbeddingTable(50, 4, padding_idx=0)
        ids = torch.zeros(3, 5, dtype=torch.int32)
    table(ids).sum().backward()
    assert table.touched() is None
    assert table.weight.grad is not None


@pytest.mark.parametrize("device", ON_DEVICES)
def test_on_a_device_they_are_torchs(device):
    """Needs an accelerator, and is skipped without one."""
    if not works_on(device):
        pytest.skip(f"{device} lacks an operation: its gradients are whole")
    torch.manual_seed(0)
    table = EmbeddingTable(WORTH_BYTES // 256, 64, padding_idx=0).to(device)
    plain = torch.nn.Embedding(WORTH_BYTES // 256, 64, padding_idx=0).to(device)
    plain.load_state_dict(table.state_dict())
    for turn in range(3):
        ids = torch.randint(0, 5000, (2048, 50), generator=torch.Generator().manual_seed(turn))
        for module in (table, plain):
            module.weight.grad = None
            module(ids.to(device)).square().sum().backward()
        assert table.touched() is not None
        clip_gradients([table.weight], 0.5, [table])
        torch.nn.utils.clip_grad_norm_([plain.weight], 0.5)
        torch.testing.assert_close(table.weight.grad, plain.weight.grad)


def batch(turn: int, rows: int = 40) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(turn)

    def ids(high, *shape):
        return torch.randint(0, high, (rows, *shape), generator=random, dtype=torch.int32)

    return {
        "user": ids(30), "item": ids(50), "category": ids(9), "hour": ids(24), "weekday": ids(7),
        "label": ids(2).float(), "history_item": ids(50, 6), "history_category": ids(9, 6),
        "history_length": ids(7),
    }  # fmt: skip


@pytest.mark.parametrize("model", ["mamba", "bst"])
def test_a_run_by_rows_as_on_an_accelerator_is_the_run_with_whole_gradients(monkeypatch, model):
    vocabulary = {
        "item": 50, "category": 9, "user": 30, "history_item": 50, "history_category": 9
    }  # fmt: skip
    trained = []
    for by_rows in (True, False):
        with monkeypatch.context() as patch:
            patch.setattr(embedding_tables, "is_by_rows", lambda *_, by=by_rows, **__: by)
            patch.setattr(row_gradients, "distinct", distinct_at_once)
            phase = Phase(model=model, history_length=6, epochs=2, grad_clip=0.05)
            task = MdafTask(vocabulary, phase, steps_per_epoch=5, device=torch.device("cpu"))
            task.begin_epoch(0)
            for turn in range(8):
                task.train_step(batch(turn), lambda _: None)
                assert (task.tables[0].touched() is not None) == by_rows
            trained.append([p.detach() for p in task.model.parameters()])
    for ours, theirs in zip(*trained, strict=True):
        # Adam divides by the gradient's size: where that is near 0, rounding is not small
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-6)
