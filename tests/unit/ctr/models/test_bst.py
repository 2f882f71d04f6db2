"""The transformer branch against its equations in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from ctrkit.ctr.models.bst import BSTBranch, TransformerLayer
from ctrkit.ctr.models.packing import pack_histories

HEADS = 2
LENGTHS = torch.tensor([3, 1, 5, 2, 4])  # with the target
LENGTH = 5


def norm(x: Tensor, layer: nn.LayerNorm) -> Tensor:
    centred = x - x.mean(1, keepdim=True)
    scale = torch.sqrt((centred**2).mean(1, keepdim=True) + 1e-5)
    return centred / scale * layer.weight + layer.bias


def linear(x: Tensor, layer: nn.Module) -> Tensor:
    assert isinstance(layer, nn.Linear)
    return x @ layer.weight.T + layer.bias


def reference_layer(layer: TransformerLayer, x: Tensor) -> Tensor:
    """One row (steps, width) without padding."""
    width = x.shape[1]
    size = width // HEADS
    q, k, v = linear(x, layer.qkv).split(width, dim=1)
    read = []
    for head in range(HEADS):
        own = slice(head * size, (head + 1) * size)
        scores = (q[:, own] @ k[:, own].T / math.sqrt(size)).exp()
        read.append(scores / scores.sum(1, keepdim=True) @ v[:, own])
    x = norm(x + linear(torch.cat(read, dim=1), layer.mix), layer.norm1)
    hidden = linear(x, layer.feed[0])
    hidden = torch.where(hidden > 0, hidden, 0.01 * hidden)
    return norm(x + linear(hidden, layer.feed[2]), layer.norm2)


@pytest.fixture
def branch() -> BSTBranch:
    torch.manual_seed(0)
    model = BSTBranch(4, 6, layers=2, heads=HEADS, hidden=8, longest=LENGTH, dropout=0.5)
    model = model.double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model


@pytest.mark.parametrize("skip_padding", [True, False])
def test_values_and_gradients_are_those_of_the_equations(
    branch: BSTBranch, skip_padding: bool
) -> None:
    padded = torch.randn(len(LENGTHS), LENGTH, 4, dtype=torch.float64, requires_grad=True)
    packing = pack_histories(LENGTHS, LENGTH, block_rows=2, skip_padding=skip_padding)
    got = branch(padded.reshape(-1, 4)[packing.source], packing)
    rows = []
    for row, steps in zip(padded, LENGTHS.tolist(), strict=True):
        x = linear(row[:steps], branch.enter) + branch.position.weight[:steps].flip(0)
        for layer in branch.layers:
            assert isinstance(layer, TransformerLayer)
            x = reference_layer(layer, x)
        rows.append(x[-1])
    want = torch.stack(rows)
    torch.testing.assert_close(got, want)
    wanted = (padded, *branch.parameters())
    weight = torch.randn_like(got)
    for ours, theirs in zip(
        torch.autograd.grad((got * weight).sum(), wanted),
        torch.autograd.grad((want * weight).sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_dropout_when_training(branch: BSTBranch) -> None:
    branch.train()
    packing = pack_histories(LENGTHS, LENGTH)
    tokens = torch.randn(packing.source.numel(), 4, dtype=torch.float64)
    assert not torch.equal(branch(tokens, packing), branch(tokens, packing))
