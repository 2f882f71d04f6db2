"""Lazy Adam: touched rows match Adam, missed decay is applied, and its state is exact."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from ctrkit.child.training.embedding_tables import EmbeddingTable
from ctrkit.ctr.training.lazy_adam import LazyAdam, Together

SIZE, WIDTH, LR = 6, 2, 0.05


def make(decay: float) -> tuple[EmbeddingTable, LazyAdam]:
    torch.manual_seed(0)
    table = EmbeddingTable(SIZE, WIDTH)
    return table, LazyAdam([table], lr=LR, weight_decay=decay)


def step(
    table: EmbeddingTable, optimizer: LazyAdam | Together, ids: list[int], scale: float
) -> None:
    optimizer.zero_grad()
    (table(torch.tensor(ids)) * scale * torch.tensor([1.0, -2.0])).sum().backward()
    optimizer.step()


def test_rows_touched_at_every_step_are_adamws() -> None:
    table, optimizer = make(0.1)
    weight = nn.Parameter(table.weight.detach().clone())
    adamw = torch.optim.AdamW([weight], lr=LR, weight_decay=0.1)
    for turn in range(5):
        step(table, optimizer, [1, 3, 3], 0.3 + turn)
        weight.grad = torch.zeros_like(weight)
        weight.grad[[1, 3]] = (0.3 + turn) * torch.tensor([[1.0, -2.0], [2.0, -4.0]])
        adamw.step()
    torch.testing.assert_close(table.weight[[1, 3]], weight[[1, 3]])


def test_rows_not_touched_stay_until_their_decay_is_made_up_for() -> None:
    table, optimizer = make(0.2)
    before = table.weight.detach().clone()
    rates = (0.05, 0.01, 0.03)
    for rate in rates:
        optimizer.param_groups[0]["lr"] = rate
        step(table, optimizer, [1], 1.0)
    torch.testing.assert_close(table.weight[4], before[4], rtol=0, atol=0)
    factor = math.prod(1 - rate * 0.2 for rate in rates)
    optimizer.settle()
    torch.testing.assert_close(table.weight[4], before[4] * factor)
    settled = table.weight.detach().clone()
    optimizer.settle()
    assert torch.equal(table.weight, settled)


def test_a_row_touched_again_has_had_all_its_decay() -> None:
    (late, lazy), (settled, other) = make(0.2), make(0.2)
    for turn in range(4):
        step(late, lazy, [1], 1.0)
        step(settled, other, [1], 1.0)
        if turn < 3:
            other.settle()
    step(late, lazy, [1, 4], 2.0)
    step(settled, other, [1, 4], 2.0)
    torch.testing.assert_close(late.weight[[1, 4]], settled.weight[[1, 4]])


def test_without_decay_other_rows_do_not_move() -> None:
    table, optimizer = make(0.0)
    before = table.weight.detach().clone()
    step(table, optimizer, [0, 5], 1.0)
    moved = (table.weight != before).any(1)
    assert moved.tolist() == [True, False, False, False, False, True]


def test_its_state_goes_on_bit_for_bit() -> None:
    table, optimizer = make(0.3)
    for ids in ([1, 2], [2, 3]):
        step(table, optimizer, ids, 1.0)
    other, resumed = make(0.3)
    other.load_state_dict(table.state_dict())
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for ids in ([3], [1, 5]):
        step(table, optimizer, ids, 0.7)
        step(other, resumed, ids, 0.7)
    for one in (optimizer, resumed):
        one.settle()
    assert torch.equal(table.weight, other.weight)


def test_several_optimisers_are_one() -> None:
    table, lazy = make(0.0)
    dense = nn.Parameter(torch.ones(2))
    both = Together(torch.optim.SGD([dense], lr=0.5), lazy)
    assert len(both.param_groups) == 2

    def go(scale: float) -> Tensor:
        both.zero_grad()
        ((table(torch.tensor([1])) + dense) * scale).sum().backward()
        both.step()
        return table.weight.detach().clone()

    go(1.0)
    state = copy.deepcopy(both.state_dict())
    kept, was = dense.detach().clone(), table.weight.detach().clone()
    after = go(2.0)
    with torch.no_grad():
        dense.copy_(kept)
        table.weight.copy_(was)
    both.load_state_dict(state)
    both.settle()
    assert torch.equal(go(2.0), after)
