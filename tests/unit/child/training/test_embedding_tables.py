"""A table gives the gradient of torch's embedding, and knows which rows it is of."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from ctrkit.child.training.embedding_tables import EmbeddingTable

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
