"""A table gives the gradient of torch's embedding, and knows its touched rows."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from ctrkit.child.training import row_gradients
from ctrkit.child.training.embedding_tables import EmbeddingTable
from ctrkit.child.training.row_gradients import distinct_at_once
from ctrkit.ctr.training.lazy_adam import LazyAdam
from ctrkit.ctr.training.optimizers import clip_gradients

SIZE, WIDTH = 9, 3
IDS = st.lists(st.integers(0, SIZE - 1), min_size=1, max_size=12)


def pair(padding_idx: int | None = 0) -> tuple[EmbeddingTable, nn.Embedding]:
    torch.manual_seed(0)
    table = EmbeddingTable(SIZE, WIDTH, padding_idx=padding_idx)
    plain = nn.Embedding(SIZE, WIDTH, padding_idx=padding_idx)
    plain.load_state_dict(table.state_dict())
    return table, plain


def backward(module: nn.Module, ids: Sequence[int], dtype: torch.dtype = torch.int64) -> Tensor:
    found = module(torch.tensor(ids, dtype=dtype))
    (found * torch.linspace(-1, 1, found.numel()).view_as(found)).sum().backward()
    return found


@given(steps=st.lists(IDS, min_size=1, max_size=4), padding_idx=st.sampled_from([0, None]))
def test_step_after_step_it_is_torchs_gradient(
    steps: list[list[int]], padding_idx: int | None
) -> None:
    table, plain = pair(padding_idx)
    for ids in steps:
        for module in (table, plain):
            module.weight.grad = None
            backward(module, ids, torch.int32)
        torch.testing.assert_close(table.weight.grad, plain.weight.grad)
        touched = table.touched()
        assert touched is not None
        rows, values = touched
        assert rows.tolist() == sorted(set(ids))
        torch.testing.assert_close(values, plain.weight.grad[rows])


def test_gradients_add_up_where_they_are_not_cleared() -> None:
    table, plain = pair()
    for module in (table, plain):
        backward(module, [1, 2])
        backward(module, [2, 3])
    torch.testing.assert_close(table.weight.grad, plain.weight.grad)
    assert table.touched() is None


def test_two_lookups_of_one_step_add_up() -> None:
    table, plain = pair()
    for module in (table, plain):
        for _ in range(2):
            module.weight.grad = None
            first, second = module(torch.tensor([1, 2])), module(torch.tensor([2, 4, 4]))
            (first.sum() + 2 * second.sum()).backward()
    torch.testing.assert_close(table.weight.grad, plain.weight.grad)
    for module in (table, plain):  # and the memory kept is clean afterwards
        module.weight.grad = None
        backward(module, [5])
    torch.testing.assert_close(table.weight.grad, plain.weight.grad)


def test_what_others_write_into_the_gradient_is_noticed_and_cleared() -> None:
    table, plain = pair()
    backward(table, [1, 2])
    assert table.weight.grad is not None
    table.weight.grad.add_(1.0)
    assert table.touched() is None
    for module in (table, plain):
        module.weight.grad = None
        backward(module, [3])
    torch.testing.assert_close(table.weight.grad, plain.weight.grad)


def test_scaling_reaches_the_gradient() -> None:
    table, plain = pair()
    for module in (table, plain):
        backward(module, [1, 2, 2])
    table.scale_(torch.tensor(0.5))
    assert plain.weight.grad is not None
    torch.testing.assert_close(table.weight.grad, plain.weight.grad * 0.5)
    assert table.touched() is not None


def test_without_a_dense_gradient_several_backward_passes_add_up() -> None:
    table, plain = pair()
    table.dense = False
    for module in (table, plain):
        backward(module, [1, 2])
        backward(module, [2, 3, 0])
    touched = table.touched()
    assert table.weight.grad is None
    assert touched is not None
    assert plain.weight.grad is not None
    dense = torch.zeros(SIZE, WIDTH).index_copy_(0, *touched)
    torch.testing.assert_close(dense, plain.weight.grad)
    table.forget()
    assert table.touched() is None


@pytest.mark.parametrize("frozen", [False, True])
def test_a_look_without_gradient_is_only_a_look(frozen: bool) -> None:
    table, _ = pair()
    backward(table, [1, 2])
    table.weight.requires_grad_(not frozen)
    with torch.set_grad_enabled(frozen):
        found = table(torch.tensor([[4, 5]]))
    assert found.shape == (1, 2, WIDTH)
    assert not found.requires_grad
    if not frozen:
        assert table.touched() is not None


@pytest.mark.parametrize("dense", [True, False])
def test_the_gradient_of_several_ranks_replaces_this_ones(dense):
    torch.manual_seed(1)
    table = EmbeddingTable(9, 2)
    table.dense = dense
    table(torch.tensor([2, 5, 2])).sum().backward()
    own, _ = table.touched()
    rows, values = torch.tensor([1, 5]), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    table.replace(own, rows, values)
    assert [part.tolist() for part in table.touched()] == [rows.tolist(), values.tolist()]
    if dense:
        expected = torch.zeros(9, 2).index_copy(0, rows, values)
        assert torch.equal(table.weight.grad, expected)
    table.forget()
    table.weight.grad = None
    table(torch.tensor([7])).sum().backward()  # and the next one finds nothing of it
    if dense:
        assert torch.equal(table.weight.grad.abs().sum(1).nonzero().ravel(), torch.tensor([7]))
    assert table.touched()[0].tolist() == [7]


@pytest.mark.parametrize("ids", [[], [0], [5], [3, 0, 3, 7, 0, 7, 7], list(range(9))])
def test_distinct_rows_without_waiting_are_those_of_unique(ids):
    whole = torch.tensor(ids, dtype=torch.int64)
    rows, places = distinct_at_once(whole, padding=0)
    assert torch.equal(rows[places], whole)
    expected = torch.unique(whole)
    assert torch.equal(rows[: len(expected)], expected)
    assert not rows[len(expected) :].any()  # the padding


def test_a_backward_pass_and_an_update_by_rows_ask_an_accelerator_for_nothing():
    # reading a value of a meta tensor raises, as it would stall an accelerator
    table = EmbeddingTable(50, 4, padding_idx=0).to("meta")
    adam = LazyAdam([table], lr=0.1, weight_decay=0.01)
    table(torch.zeros(3, 5, dtype=torch.int32, device="meta")).sum().backward()
    clip_gradients([table.weight], 1.0, [table])
    adam.step()
    rows, values = table.touched()
    assert (rows.shape, values.shape) == ((15,), (15, 4))
    assert table.weight.grad is None


def test_rows_that_are_left_over_change_nothing(monkeypatch):
    tables = []
    for at_once in (False, True):
        torch.manual_seed(0)
        table = EmbeddingTable(20, 3, padding_idx=0)
        adam = LazyAdam([table], lr=0.1, weight_decay=0.01)
        with monkeypatch.context() as patch:
            if at_once:  # as on an accelerator
                patch.setattr(row_gradients, "distinct", distinct_at_once)
            for ids in ([1, 2, 2, 0], [2, 9, 0, 0], [9, 9, 9, 9]):
                adam.zero_grad()
                table(torch.tensor(ids)).square().sum().backward()
                clip_gradients([table.weight], 0.5, [table])
                adam.step()
        adam.settle()
        tables.append(table.weight.detach())
    torch.testing.assert_close(*tables)
