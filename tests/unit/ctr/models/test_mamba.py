"""The Mamba layer and branch against their equations in float64."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ctrkit.ctr.models.mamba import RANK, STATE, TAPS, MambaBranch, MambaLayer, causal_conv
from ctrkit.ctr.models.packing import PackedBlock, Packing, pack_histories

WIDTH = 6
LENGTHS = torch.tensor([3, 0, 5, 1, 4, 2])
LENGTH = 5


def silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def reference_layer(layer: MambaLayer, row: Tensor) -> Tensor:
    """One row (length, width), step by step."""
    inner = layer.D.numel()
    mean = row.mean(1, keepdim=True)
    normed = (row - mean) / torch.sqrt(((row - mean) ** 2).mean(1, keepdim=True) + 1e-5)
    normed = normed * layer.norm.weight + layer.norm.bias
    both = normed @ layer.in_proj.weight.T
    x, z = both[:, :inner], both[:, inner:]
    h = torch.zeros(inner, STATE, dtype=row.dtype)
    out = []
    for t in range(len(row)):
        taps = layer.conv_bias
        for lag in range(min(TAPS, t + 1)):
            taps = taps + layer.conv_weight[TAPS - 1 - lag] * x[t - lag]
        x_t = silu(taps)
        low, b, c = torch.tensor_split(layer.x_proj.weight @ x_t, (RANK, RANK + STATE))
        dt = torch.log(1 + torch.exp(layer.dt_proj.weight @ low + layer.dt_proj.bias))
        a = -torch.exp(layer.A_log)
        h = torch.exp(dt[:, None] * a) * h + dt[:, None] * b * x_t[:, None]
        y = (h * c).sum(1) + layer.D * x_t
        out.append(row[t] + layer.out_proj.weight @ (y * silu(z[t])))
    return torch.stack(out)


def reference_branch(branch: MambaBranch, padded: Tensor, lengths: Tensor) -> Tensor:
    width = branch.enter.out_features
    vectors = []
    for row, steps in zip(padded, lengths.tolist(), strict=True):
        x = row[:steps] @ branch.enter.weight.T + branch.enter.bias
        for layer in branch.layers:
            assert isinstance(layer, MambaLayer)
            x = reference_layer(layer, x) if steps else x
        vectors.append(x.mean(0) if steps else torch.zeros(width, dtype=row.dtype))
    return torch.stack(vectors)


@pytest.fixture
def branch() -> MambaBranch:
    torch.manual_seed(0)
    model = MambaBranch(4, WIDTH, layers=2, dropout=0.5).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model


def packed(padded: Tensor, packing: Packing) -> Tensor:
    return padded.reshape(-1, padded.shape[2])[packing.source]


@pytest.mark.parametrize("skip_padding", [True, False])
def test_values_and_gradients_are_those_of_the_equations(
    branch: MambaBranch, skip_padding: bool
) -> None:
    padded = torch.randn(len(LENGTHS), LENGTH, 4, dtype=torch.float64, requires_grad=True)
    packing = pack_histories(LENGTHS, LENGTH, block_rows=4, skip_padding=skip_padding)
    got = branch(packed(padded, packing), packing)
    want = reference_branch(branch, padded, LENGTHS)
    torch.testing.assert_close(got, want)
    wanted = (padded, *branch.parameters())
    weight = torch.randn_like(got)
    for ours, theirs in zip(
        torch.autograd.grad((got * weight).sum(), wanted),
        torch.autograd.grad((want * weight).sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_a_change_at_the_last_step_reaches_no_earlier_one(branch: MambaBranch) -> None:
    block = (PackedBlock(0, LENGTH, 2),)
    tokens = torch.randn(LENGTH * 2, WIDTH, dtype=torch.float64)
    changed = tokens.clone()
    changed[-2:, 0] += 1.0
    layer = branch.layers[0]
    moved = (layer(tokens, block) != layer(changed, block)).view(LENGTH, -1)
    assert not moved[:-1].any()
    assert moved[-1].all()


def test_a_change_at_the_first_step_reaches_the_last_through_the_state(branch: MambaBranch) -> None:
    steps = TAPS + 4  # beyond what the convolution sees
    tokens = torch.randn(steps, WIDTH, dtype=torch.float64)
    changed = tokens.clone()
    changed[0, 0] += 1.0
    layer = branch.layers[0]
    block = (PackedBlock(0, steps, 1),)
    assert (layer(tokens, block)[-1] != layer(changed, block)[-1]).all()


def test_a_log_has_a_gradient(branch: MambaBranch) -> None:
    packing = pack_histories(LENGTHS, LENGTH)
    tokens = torch.randn(packing.source.numel(), 4, dtype=torch.float64)
    branch(tokens, packing).sum().backward()
    for layer in branch.layers:
        assert isinstance(layer, MambaLayer)
        assert layer.A_log.grad is not None
        assert (layer.A_log.grad != 0).all()


def test_convolution_is_that_of_torch() -> None:
    torch.manual_seed(0)
    for steps in (1, 2, 3, 7):
        x = torch.randn(steps, 3, 5, dtype=torch.float64)  # (steps, rows, channels)
        weight = torch.randn(TAPS, 5, dtype=torch.float64)
        bias = torch.randn(5, dtype=torch.float64)
        expected = F.conv1d(
            F.pad(x.permute(1, 2, 0), (TAPS - 1, 0)), weight.T[:, None], bias, groups=5
        ).permute(2, 0, 1)
        got = causal_conv(x.reshape(-1, 5), weight, bias, (PackedBlock(0, steps, 3),))
        torch.testing.assert_close(got.view_as(expected), expected)


def test_convolution_gradcheck() -> None:
    packing = pack_histories(torch.tensor([5, 2, 1, 0, 3]), 5, block_rows=2)
    terms = tuple(
        torch.randn(*shape, dtype=torch.float64, requires_grad=True)
        for shape in ((packing.source.numel(), 3), (TAPS, 3), (3,))
    )
    assert torch.autograd.gradcheck(lambda *t: causal_conv(*t, packing.blocks), terms)


def test_initial_values_are_those_of_the_paper() -> None:
    torch.manual_seed(0)
    layer = MambaLayer(64)
    dt = F.softplus(layer.dt_proj.bias)
    assert dt.min() >= 1e-3 * 0.999
    assert dt.max() <= 1e-1 * 1.001
    assert 0.3 < dt.log().sub(math.log(1e-3)).div(math.log(100)).mean() < 0.7  # log-uniform
    torch.testing.assert_close(
        layer.A_log.exp(), torch.arange(1.0, STATE + 1).expand(layer.D.numel(), -1)
    )
    assert (layer.D == 1).all()


def test_dropout_falls_on_the_vector(branch: MambaBranch) -> None:
    branch.train()
    packing = pack_histories(LENGTHS, LENGTH)
    tokens = torch.randn(packing.source.numel(), 4, dtype=torch.float64)
    vector = branch(tokens, packing)
    assert (vector[LENGTHS > 0] == 0).any()
    assert (vector[LENGTHS > 0] != 0).any()
